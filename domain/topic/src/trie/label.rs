//! One level of a filter as a trie node keeps it.

/// The bytes of a level. Those of ordinary length lie in the node, so comparing them follows no pointer.
#[derive(Clone, Debug)]
pub(super) enum Label {
    Inline { len: u8, bytes: [u8; Label::INLINE] },
    Heap(Box<[u8]>),
}

impl Label {
    /// As many as fit beside the length where the boxed variant needs alignment anyway.
    const INLINE: usize = 22;

    pub(super) fn new(level: &str) -> Self {
        let level = level.as_bytes();
        if level.len() > Self::INLINE {
            return Self::Heap(level.into());
        }
        let mut bytes = [0; Self::INLINE];
        bytes[..level.len()].copy_from_slice(level);
        Self::Inline { len: level.len() as u8, bytes }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}
