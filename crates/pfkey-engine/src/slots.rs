//! The memory of SAs and policies: a slot for each, in which it stays as long as it exists.

/// The number of a slot.
pub type Index = u32;

/// No slot: the end of a list.
pub(crate) const NONE: Index = Index::MAX;

/// Slots in pieces that never move: growing copies nothing and wastes at most one piece.
pub(crate) struct Slots<T> {
    pieces: Vec<Vec<Option<T>>>,
    free: Vec<Index>,
    used: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), free: Vec::new(), used: 0 }
    }
}

impl<T> Slots<T> {
    const PIECE: usize = 256;

    /// Number of slots in use.
    pub const fn used(&self) -> usize {
        self.used
    }

    pub fn get(&self, index: Index) -> Option<&T> {
        let index = index as usize;
        self.pieces.get(index / Self::PIECE)?.get(index % Self::PIECE)?.as_ref()
    }

    pub fn get_mut(&mut self, index: Index) -> Option<&mut T> {
        let index = index as usize;
        self.pieces.get_mut(index / Self::PIECE)?.get_mut(index % Self::PIECE)?.as_mut()
    }

    pub fn insert(&mut self, content: T) -> Index {
        self.used += 1;
        if let Some(index) = self.free.pop() {
            self.pieces[index as usize / Self::PIECE][index as usize % Self::PIECE] = Some(content);
            return index;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == Self::PIECE) {
            self.pieces.push(Vec::with_capacity(Self::PIECE));
        }
        let piece = self.pieces.len() - 1;
        self.pieces[piece].push(Some(content));
        (piece * Self::PIECE + self.pieces[piece].len() - 1) as Index
    }

    /// Empties a slot. `last` sees what is in it where it stands, which costs less than moving it out.
    pub fn remove_with<R>(&mut self, index: Index, last: impl FnOnce(&mut T) -> R) -> Option<R> {
        let place = index as usize;
        let content = self.pieces.get_mut(place / Self::PIECE)?.get_mut(place % Self::PIECE)?;
        let done = last(content.as_mut()?);
        *content = None;
        self.used -= 1;
        self.free.push(index);
        Some(done)
    }

    pub fn remove(&mut self, index: Index) -> Option<T> {
        let place = index as usize;
        let content = self.pieces.get_mut(place / Self::PIECE)?.get_mut(place % Self::PIECE)?.take()?;
        self.used -= 1;
        self.free.push(index);
        Some(content)
    }
}
