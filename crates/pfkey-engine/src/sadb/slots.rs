//! The memory of the SADB: a slot for each SA, in which it stays as long as it exists.

use crate::sa::Sa;

/// The number of a slot.
pub type Index = u32;

/// No slot: the end of a list.
pub(super) const NONE: Index = Index::MAX;

/// The neighbours of an SA in a list; [`NONE`] at its ends.
#[derive(Clone, Copy)]
pub(super) struct Links {
    pub newer: Index,
    pub older: Index,
}

/// An SA and its place in two lists.
pub(super) struct Slot {
    pub sa: Sa,
    /// Neighbours among all SAs.
    pub all: Links,
    /// Neighbours among the SAs of the same route.
    pub route: Links,
}

/// Slots in pieces that never move: growing copies nothing and wastes at most one piece.
#[derive(Default)]
pub(super) struct Slots {
    pieces: Vec<Vec<Option<Slot>>>,
    free: Vec<Index>,
    used: usize,
}

impl Slots {
    const PIECE: usize = 256;

    /// Number of slots in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    pub fn get(&self, index: Index) -> Option<&Slot> {
        let index = index as usize;
        self.pieces.get(index / Self::PIECE)?.get(index % Self::PIECE)?.as_ref()
    }

    pub fn get_mut(&mut self, index: Index) -> Option<&mut Slot> {
        let index = index as usize;
        self.pieces.get_mut(index / Self::PIECE)?.get_mut(index % Self::PIECE)?.as_mut()
    }

    pub fn insert(&mut self, slot: Slot) -> Index {
        self.used += 1;
        if let Some(index) = self.free.pop() {
            self.pieces[index as usize / Self::PIECE][index as usize % Self::PIECE] = Some(slot);
            return index;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == Self::PIECE) {
            self.pieces.push(Vec::with_capacity(Self::PIECE));
        }
        let piece = self.pieces.len() - 1;
        self.pieces[piece].push(Some(slot));
        (piece * Self::PIECE + self.pieces[piece].len() - 1) as Index
    }

    pub fn remove(&mut self, index: Index) -> Option<Slot> {
        let place = index as usize;
        let slot = self.pieces.get_mut(place / Self::PIECE)?.get_mut(place % Self::PIECE)?.take()?;
        self.used -= 1;
        self.free.push(index);
        Some(slot)
    }
}
