//! A vector in pieces, which never moves what it holds to grow and has at most one piece too many.

use std::ops::{Index, IndexMut};

/// Items of a piece. The first one grows as a vector does: most collections are small.
const PIECE: usize = 512;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    /// All but the last are full; none is empty.
    pieces: Vec<Vec<T>>,
    /// Items of all pieces: asked for at each lookup.
    len: usize,
}

impl<T> Pages<T> {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, item: T) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(item),
            Some(_) => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(item);
                self.pieces.push(piece);
            }
            None => self.pieces.push(vec![item]),
        }
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.pieces.last_mut()?;
        let item = last.pop();
        self.len -= 1;
        if last.is_empty() {
            self.pieces.pop();
        } else if let [only] = &mut self.pieces[..] {
            shrink(only);
        }
        shrink(&mut self.pieces);
        item
    }

    /// Takes an item out; the last one takes its place.
    ///
    /// # Panics
    ///
    /// When there are items, but not this one.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<T> {
        let last = self.pop()?;
        Some(if at == self.len() { last } else { std::mem::replace(&mut self[at], last) })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE][at % PIECE]
    }
}

/// The factor keeps the cost per removal constant.
fn shrink<T>(items: &mut Vec<T>) {
    if items.len() < items.capacity() / 4 {
        items.shrink_to(2 * items.len());
    }
}
