//! A node in one of its lives.

/// Who holds a connection: the node's number in the upper 16 bits, which of its lives below. Greater in
/// each life of a node than in all before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(pub u64);

impl Instance {
    const INCARNATION_BITS: u32 = 48;

    /// This life of this node.
    pub fn new(node: u64, incarnation: u64) -> Self {
        let mask = (1 << Self::INCARNATION_BITS) - 1;
        Self(node << Self::INCARNATION_BITS | incarnation & mask)
    }

    /// The node; 0 for one of a version that did not number them.
    pub fn node(self) -> u64 {
        self.0 >> Self::INCARNATION_BITS
    }

    /// Whether a connection that this one holds stands in the way of one to `other`. A node sees to its
    /// own by itself, and what a version without clusters wrote is of a life that is over.
    pub fn keeps_out(self, other: Self) -> bool {
        self.node() != 0 && self.node() != other.node()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_tells_node_and_life() {
        let life = |millis: u64| Instance::new(3, 1_800_000_000_000 + millis);
        assert_eq!((life(0).node(), life(1).node()), (3, 3));
        assert!(life(0) < life(1));
        assert!(!life(0).keeps_out(life(1)));
        assert!(life(0).keeps_out(Instance::new(4, 1)));
        assert!(!Instance(1).keeps_out(life(0)), "what a version without clusters wrote");
    }
}
