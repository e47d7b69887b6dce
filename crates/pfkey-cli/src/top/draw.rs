//! A frame.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use pfkey_model::sa::State;
use pfkey_wire::SaState;

use super::app::App;
use super::model::{Group, History, Item, Way};
use crate::model::names;
use crate::overview::duration;

/// Lines below: what happened.
const EVENTS: u16 = 6;
/// Columns of a sparkline.
const SPARKS: u32 = 8;
const KEYS: &str = "q quit  ↑↓ move  Enter details  Space fold  a all  s sort  / filter  p pause";

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let width = usize::from(area.width);
    let events = if area.height >= 16 && app.details.is_none() { EVENTS } else { 0 };
    // Two lines at the top, the heading, and one at the bottom.
    let body = area.height.saturating_sub(4 + events);
    app.resize(usize::from(body));
    let mut lines = vec![header(app), second(app)];
    if let Some((details, first)) = &app.details {
        lines.push(Line::styled("  SA", Style::new().add_modifier(Modifier::BOLD)));
        let folded = details.iter().flat_map(|line| folded(line, width));
        lines.extend(folded.skip(*first).take(usize::from(body)).map(Line::raw));
    } else {
        let widths = Widths::of(app, width);
        let heading = format!("  {}", columns(widths, ["PEER", "POLICY", "SAS", "IN", "OUT", "MINUTE", "LEFT"]));
        lines.push(Line::styled(heading, Style::new().add_modifier(Modifier::BOLD)));
        let shown = app.rows.iter().enumerate().skip(app.offset).take(usize::from(body));
        for (place, row) in shown {
            let line = match app.at(*row) {
                Some((group, None)) => group_line(app, group, widths),
                Some((_, Some(item))) => sa_line(app, item, width),
                None => continue,
            };
            let line = if place == app.selected { line.patch_style(Modifier::REVERSED) } else { line };
            lines.push(line);
        }
        if app.rows.is_empty() {
            let why = if app.filter.is_empty() {
                "  no SAs and no policies that demand one"
            } else {
                "  nothing has this in it"
            };
            lines.push(Line::raw(why));
        }
    }
    let top = area.height.saturating_sub(events + 1);
    let part = |y, height| Rect { y, height, ..area }.intersection(area);
    frame.render_widget(Paragraph::new(lines), part(0, top));
    if events > 0 {
        let title = format!("── events {}", "─".repeat(width.saturating_sub(10)));
        let newest = app.events.len().saturating_sub(usize::from(events) - 1);
        let told = app.events.iter().skip(newest).map(|event| Line::raw(event.clone()));
        let lines: Vec<Line<'_>> = std::iter::once(Line::raw(title)).chain(told).collect();
        frame.render_widget(Paragraph::new(lines), part(top, events));
    }
    let last = match app.is_editing {
        _ if app.details.is_some() => "Esc back  ↑↓ scroll".to_owned(),
        true => format!("filter: {}▏  Enter keeps it, Esc ends it", app.filter),
        false if !app.filter.is_empty() => format!("filter: {}  Esc ends it  {KEYS}", app.filter),
        false => KEYS.to_owned(),
    };
    frame.render_widget(Paragraph::new(last), part(area.height.saturating_sub(1), 1));
}

/// A style, if there are colours.
fn coloured(app: &App, colour: Color) -> Style {
    if app.is_plain { Style::new() } else { Style::new().fg(colour) }
}

fn header(app: &App) -> Line<'static> {
    let model = &app.model;
    let sum = |rate: fn(&Group) -> f64| model.groups.iter().map(rate).sum::<f64>();
    let dying = if model.dying == 0 { String::new() } else { format!(", {} dying", model.dying) };
    let mut spans = vec![
        Span::styled("pfkey top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  SAs {}{dying}  policies {}", model.sas, model.rules.len())),
    ];
    if model.lacking > 0 {
        spans.push(Span::styled(format!(", {} without SA", model.lacking), coloured(app, Color::Red)));
    }
    let (into, out) = (speed(sum(|group| group.into)), speed(sum(|group| group.out)));
    spans.push(Span::raw(format!("  in {into} out {out}")));
    Line::from(spans)
}

fn every(app: &App) -> String {
    let seconds = app.interval.as_secs_f64();
    if seconds < 10.0 && seconds.fract() > 0.05 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn second(app: &App) -> Line<'static> {
    if let Some(trouble) = &app.trouble {
        return Line::styled(trouble.replace('\n', " "), coloured(app, Color::Red));
    }
    let pause = if app.is_paused { "paused".to_owned() } else { format!("every {}", every(app)) };
    let all = sparkline(&app.model.history, 2 * SPARKS);
    let mut spans = vec![Span::raw(format!("{all:16}  {pause}  by {}", app.order.name()))];
    if app.model.acquires > 0 {
        spans.push(Span::styled(format!("  ACQUIREs waiting {}", app.model.acquires), coloured(app, Color::Yellow)));
    }
    for moved in &app.model.moved {
        spans
            .push(Span::styled(format!("  {} {} (+{})", moved.name, moved.value, moved.by), coloured(app, Color::Red)));
    }
    Line::from(spans)
}

/// Widths of a group's texts; its numbers have theirs.
#[derive(Clone, Copy)]
struct Widths {
    peer: usize,
    policy: usize,
}

impl Widths {
    fn of(app: &App, width: usize) -> Self {
        let peers = app.model.groups.iter().filter_map(|group| group.key.0).map(|peer| peer.to_string().len());
        let peer = peers.max().unwrap_or(0).clamp(4, (width / 4).clamp(4, 39));
        Self { peer, policy: width.saturating_sub(2 + peer + 1 + 6 + 8 + 8 + 1 + SPARKS as usize + 7).max(6) }
    }
}

/// Cells of a group's line.
fn columns(widths: Widths, cells: [&str; 7]) -> String {
    let [peer, policy, sas, into, out, minute, left] = cells;
    let (peer, policy) = (fitted(peer, widths.peer), fitted(policy, widths.policy));
    format!("{peer} {policy}{sas:>6}{into:>8}{out:>8} {minute:<8}{left:>7}")
}

/// A text in lines of so many columns at most.
fn folded(text: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    if letters.is_empty() {
        vec![String::new()]
    } else {
        letters.chunks(width.max(1)).map(|c| c.iter().collect()).collect()
    }
}

/// A text with exactly so many columns.
fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return format!("{text:<width$}");
    }
    let short: String = text.chars().take(width.saturating_sub(1)).collect();
    short + "…"
}

fn group_line(app: &App, group: &Group, widths: Widths) -> Line<'static> {
    let mark = match (group.items.is_empty(), app.is_folded(&group.key)) {
        (true, _) => "  ",
        (_, true) => "▸ ",
        (_, false) => "▾ ",
    };
    let peer = group.key.0.map_or_else(|| "any".to_owned(), |peer| peer.to_string());
    let policy = if group.key.1.is_empty() { "no policy" } else { &group.key.1 };
    let minute = app.model.histories.get(&group.key).map(|history| sparkline(history, SPARKS)).unwrap_or_default();
    let left = group.left.map(duration).unwrap_or_default();
    let sas = if group.items.is_empty() { "no SA".to_owned() } else { group.items.len().to_string() };
    let cells = [&peer, policy, &sas, &speed(group.into), &speed(group.out), &minute, &left];
    let mut line = format!("{mark}{}", columns(widths, cells));
    if !group.lacks.is_empty() && !group.items.is_empty() {
        let lacks: Vec<&str> = group.lacks.iter().map(String::as_str).collect();
        line.push_str(&format!("  no SA {}", lacks.join(", ")));
    }
    match group.lacks.is_empty() {
        true => Line::raw(line),
        false => Line::styled(line, coloured(app, Color::Red)),
    }
}

fn sa_line(app: &App, item: &Item, width: usize) -> Line<'static> {
    let (sa, now) = (&item.sa, app.model.now);
    let arrow = if item.way == Way::Out { "→" } else { "←" };
    let state = names::state(SaState::from(sa.state).0);
    let colour = match sa.state {
        State::Mature => Color::Green,
        State::Larval | State::Dying => Color::Yellow,
        State::Refused | State::Dead => Color::Red,
    };
    let left = sa.seconds_left(now).map(duration).unwrap_or_default();
    let time = time_bar(item, now);
    let volume = volume_bar(item);
    let refused = if item.refused() == 0 { String::new() } else { format!("!{}", item.refused()) };
    let end = format!("{:>8} {time}{left:>7} {volume}{refused:>4}", speed(item.bytes));
    let start = format!("  {arrow} {:<7} {:#010x} ", sa.protocol(), sa.spi);
    // What is left of the line.
    let used = start.chars().count() + 7 + end.chars().count();
    let algorithms = fitted(&sa.algorithms(), width.saturating_sub(used).max(8));
    Line::from(vec![
        Span::raw(start),
        Span::styled(format!("{state:<7}"), coloured(app, colour)),
        Span::raw(algorithms),
        Span::raw(end),
    ])
}

/// Columns of a bar.
const BAR: usize = 6;

/// How much of the time to the hard limit is over, with a mark at the soft one.
fn time_bar(item: &Item, now: u64) -> String {
    let (hard, soft, usage) = (item.sa.hard, item.sa.soft, item.sa.usage);
    let over = |since: u64| now.saturating_sub(since);
    // Of two limits the one that is nearer.
    let by_add = (hard.add_seconds, soft.add_seconds, over(usage.add_time));
    let by_use = (hard.use_seconds, soft.use_seconds, if usage.use_time == 0 { 0 } else { over(usage.use_time) });
    let left = |(hard, _, over): (u64, u64, u64)| if hard == 0 { u64::MAX } else { hard.saturating_sub(over) };
    let (hard, soft, over) = if left(by_use) < left(by_add) { by_use } else { by_add };
    bar(over, soft, hard)
}

/// The same for bytes, or for packets where they are nearer to their limit.
fn volume_bar(item: &Item) -> String {
    let (hard, soft, usage) = (item.sa.hard, item.sa.soft, item.sa.usage);
    let part = |used: u64, limit: u64| if limit == 0 { 0.0 } else { used as f64 / limit as f64 };
    if hard.packets != 0 && (hard.bytes == 0 || part(usage.packets, hard.packets) > part(usage.bytes, hard.bytes)) {
        return bar(usage.packets, soft.packets, hard.packets);
    }
    bar(usage.bytes, soft.bytes, hard.bytes)
}

/// A bar of what was used of a limit; blank without one.
pub fn bar(used: u64, soft: u64, hard: u64) -> String {
    if hard == 0 {
        return " ".repeat(BAR);
    }
    let part = |n: u64| ((n as f64 / hard as f64) * BAR as f64).round().min(BAR as f64) as usize;
    let (full, mark) = (part(used), part(soft));
    let cell = |place: usize| match (place < full, soft != 0 && soft < hard && place == mark) {
        (_, true) => '|',
        (true, _) => '█',
        (false, _) => '░',
    };
    (0..BAR).map(cell).collect()
}

/// A rate over the last minute, scaled to its own most.
fn sparkline(history: &History, columns: u32) -> String {
    const SPARKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = history.columns(columns);
    let most = columns.iter().copied().fold(0.0, f64::max);
    let spark = |rate: f64| {
        let height = if most > 0.0 { (rate / most * 8.0).ceil() as usize } else { 0 };
        SPARKS.get(height).copied().unwrap_or(' ')
    };
    columns.into_iter().map(spark).collect()
}

/// Bytes a second, in eight columns at most.
pub fn speed(bytes: f64) -> String {
    let mut rate = bytes;
    for unit in ["B/s", "kB/s", "MB/s", "GB/s"] {
        if rate < 999.5 {
            return if rate < 9.95 && unit != "B/s" { format!("{rate:.1}{unit}") } else { format!("{rate:.0}{unit}") };
        }
        rate /= 1000.0;
    }
    format!("{rate:.1}TB/s")
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::app::tests::app;
    use super::*;

    fn frame(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        super::super::once::lines(terminal.backend().buffer())
    }

    #[test]
    fn a_frame_of_80_by_24() {
        let mut app = app();
        app.event("12:00:01 ADD esp 192.0.2.1 → 198.51.100.2 spi 0x00001001".to_owned());
        let expected = [
            "pfkey top  SAs 3  policies 3, 1 without SA  in 500B/s out 1.0kB/s",
            "               █  every 1 s  by rate  XfrmInNoStates 8 (+3)",
            "  PEER          POLICY                       SAS      IN     OUT MINUTE     LEFT",
            "▾ 198.51.100.2  10.0.0.0/24 ⇄ 10.1.0.0/24      2  500B/s 1.0kB/s        █ 54 min",
            "  → esp     0x00001001 mature aes-cbc hmac-sha1 1.0kB/s █░░░░░ 54 min",
            "  ← esp     0x00001002 mature aes-cbc hmac-sha1  500B/s █░░░░░ 54 min         !2",
            "  198.51.100.77 10.0.0.0/24 ⇄ 10.7.0.0/24  no SA    0B/s    0B/s",
            "▾ 203.0.113.9   no policy                      1    0B/s    0B/s          54 min",
        ];
        let shown = frame(&mut app, 80, 24);
        assert_eq!(shown.len(), 24);
        assert_eq!(shown[..expected.len()], expected.map(str::to_owned));
        assert!(shown.iter().all(|line| line.chars().count() <= 80), "{shown:#?}");
        let text = shown.join("\n");
        assert!(text.contains("── events ") && text.contains("12:00:01 ADD esp"), "{text}");
        assert!(shown[23].starts_with("q quit"), "{text}");
    }

    #[test]
    fn small_and_wide_screens() {
        for (width, height) in [(1, 1), (20, 5), (79, 15), (80, 16), (200, 60), (500, 3)] {
            let mut app = app();
            assert_eq!(frame(&mut app, width, height).len(), usize::from(height), "{width}x{height}");
            app.details = Some((vec!["x".repeat(300); 100], 50));
            frame(&mut app, width, height);
        }
    }

    #[test]
    fn colours_can_be_left_out() {
        let styles = |is_plain: bool| {
            let mut app = app();
            app.is_plain = is_plain;
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| draw(frame, &mut app)).unwrap();
            let cells = terminal.backend().buffer().content().to_vec();
            cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
        };
        assert_eq!(styles(true), 0);
        assert!(styles(false) > 10);
    }

    #[test]
    fn a_filter_that_fits_nothing_says_so() {
        let mut app = app();
        for c in "/xyz".chars() {
            app.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        }
        let shown = frame(&mut app, 80, 24);
        assert_eq!(
            (shown[3].as_str(), shown[23].as_str()),
            ("  nothing has this in it", "filter: xyz▏  Enter keeps it, Esc ends it")
        );
    }

    #[test]
    fn bars_and_speeds() {
        assert_eq!(bar(50, 75, 100), "███░░|");
        assert_eq!(bar(0, 0, 100), "░░░░░░");
        assert_eq!(bar(900, 100, 100), "██████");
        assert_eq!(bar(9, 9, 0), "      ");
        assert_eq!(bar(u64::MAX, 1, u64::MAX), "|█████");
        let speeds = [0.0, 999.4, 1000.0, 9960.0, 123_456.0, 1.5e9, 2.5e13].map(speed);
        assert_eq!(speeds, ["0B/s", "999B/s", "1.0kB/s", "10kB/s", "123kB/s", "1.5GB/s", "25.0TB/s"]);
    }
}
