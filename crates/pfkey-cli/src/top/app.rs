//! What the user has chosen to see: order, filter, what is folded, which line is meant.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Group, Item, Key, Model};
use crate::model::names;
use crate::overview::Name;
use pfkey_wire::SaState;

/// Events that are remembered.
const MOST_EVENTS: usize = 200;
/// SAs from which on groups are folded until they are opened.
const MANY: usize = 200;

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What is fast.
    #[default]
    Rate,
    /// What ends soon.
    Left,
    /// Peers in the order of their addresses.
    Peer,
    /// What has refused packets, or lacks an SA.
    Trouble,
}

impl Order {
    const ALL: [Self; 4] = [Self::Rate, Self::Left, Self::Peer, Self::Trouble];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Left => "time left",
            Self::Peer => "peer",
            Self::Trouble => "trouble",
        }
    }

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        Self::ALL.get(place + 1).copied().unwrap_or_default()
    }

    fn groups(self, a: &Group, b: &Group) -> Ordering {
        let rate = |group: &Group| group.out + group.into;
        match self {
            Self::Rate => rate(b).total_cmp(&rate(a)),
            Self::Left => a.left.unwrap_or(u64::MAX).cmp(&b.left.unwrap_or(u64::MAX)),
            Self::Peer => Ordering::Equal,
            Self::Trouble => (b.lacks.len(), b.refused).cmp(&(a.lacks.len(), a.refused)),
        }
        .then_with(|| a.key.cmp(&b.key))
    }

    fn items(self, a: &Item, b: &Item, now: u64) -> Ordering {
        let left = |item: &Item| item.sa.seconds_left(now).unwrap_or(u64::MAX);
        match self {
            Self::Rate => b.bytes.total_cmp(&a.bytes),
            Self::Left => left(a).cmp(&left(b)),
            Self::Peer => Ordering::Equal,
            Self::Trouble => b.refused().cmp(&a.refused()),
        }
        .then_with(|| a.sa.name().cmp(&b.sa.name()))
    }
}

/// A line: a group, or an SA of it, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A group.
    Group(usize),
    /// An SA.
    Sa(usize, usize),
}

/// What a line is about, whatever moves around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// A group.
    Group(Key),
    /// An SA.
    Sa(Name),
}

/// What a key asks of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing beyond another frame.
    Frame,
    /// The end.
    End,
    /// To stop, as the shell's job.
    Stop,
    /// To read everything now.
    Read,
    /// What there is to say of an SA.
    Details(Name),
}

/// Everything that a frame is made of.
#[derive(Default)]
pub struct App {
    /// What there is.
    pub model: Model,
    /// Lines, in their order.
    pub rows: Vec<Row>,
    /// The line that is meant.
    pub selected: usize,
    /// The first line that is on the screen.
    pub offset: usize,
    /// What comes first.
    pub order: Order,
    /// What a line has to contain.
    pub filter: String,
    /// The filter is being written.
    pub is_editing: bool,
    /// Nothing is read.
    pub is_paused: bool,
    /// What is said of an SA, and the first line of it that is on the screen.
    pub details: Option<(Vec<String>, usize)>,
    /// What happened, the newest last.
    pub events: VecDeque<String>,
    /// What went wrong.
    pub trouble: Option<String>,
    /// Time between two refreshes.
    pub interval: Duration,
    /// Lines that fit on the screen.
    pub page: usize,
    /// Without colours.
    pub is_plain: bool,
    /// Groups that are not as the others.
    toggled: HashSet<Key>,
    /// The others are folded; `None`: where there are many SAs.
    folded: Option<bool>,
}

impl App {
    /// Nothing yet.
    pub fn new(is_plain: bool, interval: Duration) -> Self {
        Self { is_plain, interval, ..Self::default() }
    }

    /// Whether a group shows no SAs.
    pub fn is_folded(&self, key: &Key) -> bool {
        self.folded.unwrap_or(self.model.sas > MANY) != self.toggled.contains(key)
    }

    /// Shows every SA, however many there are.
    pub fn open_all(&mut self) {
        self.folded = Some(false);
        self.arrange();
    }

    /// Puts the lines in their order again; the same line is meant as before.
    pub fn arrange(&mut self) {
        let meant = self.meant();
        let (order, now) = (self.order, self.model.now);
        self.model.groups.sort_by(|a, b| order.groups(a, b));
        for group in &mut self.model.groups {
            group.items.sort_by(|a, b| order.items(a, b, now));
        }
        let mut rows = Vec::new();
        let wanted = self.filter.to_lowercase();
        for (at, group) in self.model.groups.iter().enumerate() {
            let is_group = wanted.is_empty() || group_text(group).contains(&wanted);
            let mut items: Vec<Row> = Vec::new();
            if !self.is_folded(&group.key) || !is_group {
                let fits = |item: &Item| is_group || item_text(item).contains(&wanted);
                let places = group.items.iter().enumerate().filter(|(_, item)| fits(item));
                items = places.map(|(place, _)| Row::Sa(at, place)).collect();
            }
            if is_group || !items.is_empty() {
                rows.push(Row::Group(at));
                rows.append(&mut items);
            }
        }
        self.rows = rows;
        let same = meant.and_then(|meant| self.rows.iter().position(|row| self.is_about(*row, &meant)));
        self.select(same.unwrap_or(self.selected));
    }

    /// The group of a line, and its SA, if it is one's.
    pub fn at(&self, row: Row) -> Option<(&Group, Option<&Item>)> {
        match row {
            Row::Group(group) => Some((self.model.groups.get(group)?, None)),
            Row::Sa(group, item) => {
                let group = self.model.groups.get(group)?;
                Some((group, Some(group.items.get(item)?)))
            }
        }
    }

    fn meant(&self) -> Option<Meant> {
        Some(match self.at(*self.rows.get(self.selected)?)? {
            (_, Some(item)) => Meant::Sa(item.sa.name()),
            (group, None) => Meant::Group(group.key.clone()),
        })
    }

    fn is_about(&self, row: Row, meant: &Meant) -> bool {
        match (self.at(row), meant) {
            (Some((_, Some(item))), Meant::Sa(name)) => item.sa.name() == *name,
            (Some((group, None)), Meant::Group(key)) => group.key == *key,
            _ => false,
        }
    }

    /// Makes a line the one that is meant, and visible.
    fn select(&mut self, place: usize) {
        self.selected = place.min(self.rows.len().saturating_sub(1));
        let page = self.page.max(1);
        self.offset = self.offset.clamp((self.selected + 1).saturating_sub(page), self.selected);
    }

    /// Says what happened.
    pub fn event(&mut self, line: String) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }

    /// The number of lines has become another.
    pub fn resize(&mut self, page: usize) {
        self.page = page;
        self.select(self.selected);
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) -> Asked {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Asked::End,
                KeyCode::Char('z') => Asked::Stop,
                KeyCode::Char('l') => Asked::Read,
                _ => Asked::Frame,
            };
        }
        if self.is_editing {
            self.edit(key.code);
            return Asked::Frame;
        }
        if let Some((lines, first)) = &mut self.details {
            let last = lines.len().saturating_sub(1);
            match key.code {
                KeyCode::Up | KeyCode::Char('k') => *first = first.saturating_sub(1),
                KeyCode::Down | KeyCode::Char('j') => *first = (*first + 1).min(last),
                KeyCode::PageUp => *first = first.saturating_sub(10),
                KeyCode::PageDown => *first = (*first + 10).min(last),
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.details = None,
                _ => {}
            }
            return Asked::Frame;
        }
        let page = self.page.max(1);
        match key.code {
            KeyCode::Char('q') => return Asked::End,
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(page)),
            KeyCode::PageDown => self.select(self.selected.saturating_add(page)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.arrange();
            }
            KeyCode::Char(' ') => self.fold(),
            KeyCode::Char('a') => {
                let folded = self.folded.unwrap_or(self.model.sas > MANY);
                self.folded = Some(!folded);
                self.toggled.clear();
                self.arrange();
            }
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_editing = true,
            KeyCode::Esc => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Enter => match self.meant() {
                Some(Meant::Sa(name)) => return Asked::Details(name),
                _ => self.fold(),
            },
            _ => {}
        }
        Asked::Frame
    }

    fn edit(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_editing = false,
            KeyCode::Esc => {
                self.is_editing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
        self.arrange();
    }

    /// Folds the group that is meant, or opens it.
    fn fold(&mut self) {
        let Some(row) = self.rows.get(self.selected).copied() else { return };
        let (Row::Group(place) | Row::Sa(place, _)) = row;
        let Some(key) = self.model.groups.get(place).map(|group| group.key.clone()) else { return };
        // The line of an SA goes with it.
        let group = self.rows.iter().position(|row| *row == Row::Group(place));
        self.select(group.unwrap_or(self.selected));
        if !self.toggled.remove(&key) {
            self.toggled.insert(key);
        }
        self.arrange();
    }
}

/// What a filter looks at.
fn group_text(group: &Group) -> String {
    let peer = group.key.0.map(|peer| peer.to_string()).unwrap_or_default();
    let lacks = if group.lacks.is_empty() { "" } else { "no sa" };
    format!("{peer} {} {lacks}", group.key.1).to_lowercase()
}

fn item_text(item: &Item) -> String {
    let sa = &item.sa;
    let (protocol, algorithms) = (sa.protocol(), sa.algorithms());
    let (mode, state) = (names::mode(sa.mode.0), names::state(SaState::from(sa.state).0));
    format!(
        "{protocol} {:#010x} {mode} {state} {algorithms} reqid {} {} {}",
        sa.spi,
        sa.reqid,
        sa.ends.src(),
        sa.ends.dst()
    )
    .to_lowercase()
}

#[cfg(test)]
pub mod tests {
    use super::super::model::tests::model;
    use super::*;

    pub fn app() -> App {
        let mut app = App { model: model(), interval: Duration::from_secs(1), page: 10, ..App::default() };
        app.arrange();
        app
    }

    fn press(app: &mut App, code: KeyCode) -> Asked {
        app.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn lines(app: &App) -> Vec<String> {
        let line = |row: &Row| match app.at(*row).unwrap() {
            (_, Some(item)) => format!("{:#x}", item.sa.spi),
            (group, None) => group.key.0.unwrap().to_string(),
        };
        app.rows.iter().map(line).collect()
    }

    const ALL: [&str; 6] = ["198.51.100.2", "0x1001", "0x1002", "198.51.100.77", "203.0.113.9", "0x1003"];

    #[test]
    fn orders() {
        let mut app = app();
        assert_eq!(lines(&app), ALL);
        press(&mut app, KeyCode::Char('s'));
        assert_eq!((app.order, lines(&app)[0].as_str()), (Order::Left, "198.51.100.2"));
        press(&mut app, KeyCode::Char('s'));
        let peers = ["198.51.100.2", "0x1002", "0x1001", "198.51.100.77", "203.0.113.9", "0x1003"];
        assert_eq!((app.order, lines(&app)), (Order::Peer, peers.map(str::to_owned).to_vec()));
        press(&mut app, KeyCode::Char('s'));
        let trouble = ["198.51.100.77", "198.51.100.2", "0x1002", "0x1001", "203.0.113.9", "0x1003"];
        assert_eq!((app.order, lines(&app)), (Order::Trouble, trouble.map(str::to_owned).to_vec()));
        press(&mut app, KeyCode::Char('s'));
        assert_eq!(app.order, Order::Rate);
    }

    #[test]
    fn the_line_that_is_meant_stays() {
        let mut app = app();
        press(&mut app, KeyCode::Down);
        for _ in 0..3 {
            press(&mut app, KeyCode::Char('s'));
            assert_eq!(lines(&app)[app.selected], "0x1001");
        }
    }

    #[test]
    fn folding() {
        let mut app = app();
        press(&mut app, KeyCode::Down);
        press(&mut app, KeyCode::Char(' '));
        assert_eq!(
            (lines(&app).join(" "), app.selected),
            ("198.51.100.2 198.51.100.77 203.0.113.9 0x1003".to_owned(), 0)
        );
        press(&mut app, KeyCode::Char('a'));
        assert_eq!(lines(&app).len(), 3);
        press(&mut app, KeyCode::Enter);
        assert_eq!(lines(&app).len(), 5);
        press(&mut app, KeyCode::Char('a'));
        assert_eq!(lines(&app), ALL);
    }

    #[test]
    fn filtering() {
        let mut app = app();
        for c in "/1002".chars() {
            press(&mut app, KeyCode::Char(c));
        }
        assert_eq!((lines(&app), app.is_editing), (vec!["198.51.100.2".to_owned(), "0x1002".to_owned()], true));
        press(&mut app, KeyCode::Enter);
        assert!(!app.is_editing && app.filter == "1002");
        press(&mut app, KeyCode::Esc);
        assert_eq!(lines(&app), ALL);
        for c in "/NO SA".chars() {
            press(&mut app, KeyCode::Char(c));
        }
        assert_eq!(lines(&app), ["198.51.100.77"]);
        press(&mut app, KeyCode::Backspace);
        press(&mut app, KeyCode::Esc);
        assert_eq!((lines(&app).len(), app.filter.as_str()), (6, ""));
    }

    #[test]
    fn a_small_screen_moves_with_the_line() {
        let mut app = app();
        app.resize(2);
        press(&mut app, KeyCode::End);
        assert_eq!((app.selected, app.offset), (5, 4));
        press(&mut app, KeyCode::Up);
        press(&mut app, KeyCode::Up);
        assert_eq!((app.selected, app.offset), (3, 3));
        press(&mut app, KeyCode::PageDown);
        assert_eq!((app.selected, app.offset), (5, 4));
        press(&mut app, KeyCode::Home);
        assert_eq!((app.selected, app.offset), (0, 0));
    }

    #[test]
    fn details_and_the_end() {
        let mut app = app();
        assert_eq!(press(&mut app, KeyCode::Enter), Asked::Frame);
        press(&mut app, KeyCode::Enter);
        press(&mut app, KeyCode::Down);
        let Asked::Details(name) = press(&mut app, KeyCode::Enter) else { panic!("an SA has details") };
        assert_eq!(name.2, 0x1001);
        app.details = Some((vec![String::new(); 3], 0));
        press(&mut app, KeyCode::PageDown);
        assert_eq!(app.details.as_ref().unwrap().1, 2);
        assert_eq!(press(&mut app, KeyCode::Char('q')), Asked::Frame);
        assert!(app.details.is_none());
        assert_eq!(press(&mut app, KeyCode::Char('q')), Asked::End);
        assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Asked::End);
    }

    #[test]
    fn events_are_bounded() {
        let mut app = app();
        (0..1000).for_each(|n| app.event(n.to_string()));
        assert_eq!((app.events.len(), app.events.back().map(String::as_str)), (MOST_EVENTS, Some("999")));
    }
}
