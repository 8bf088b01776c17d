//! Topic aliases towards the client.

use rustc_hash::FxHashMap;

/// Gives the first topics that a client receives an alias each, up to its Topic Alias Maximum
/// [v5 3.3.2.3.4]. An alias is never given to another topic, so that no state has to be undone.
#[derive(Debug)]
pub struct OutboundAliases {
    maximum: u16,
    by_topic: FxHashMap<Box<str>, u16>,
}

/// Topics longer than this are not worth remembering.
const LONGEST: usize = 256;

impl OutboundAliases {
    /// No alias is ever given when `maximum` is 0 [v5 MQTT-3.1.2-27].
    pub fn new(maximum: u16) -> Self {
        Self { maximum, by_topic: FxHashMap::default() }
    }

    /// The alias of a topic, and whether the client already knows it (then the topic is left out).
    pub fn alias(&mut self, topic: &str) -> Option<(u16, bool)> {
        if let Some(&alias) = self.by_topic.get(topic) {
            return Some((alias, true));
        }
        let next = u16::try_from(self.by_topic.len() + 1).ok()?;
        if next > self.maximum || topic.len() > LONGEST {
            return None;
        }
        self.by_topic.insert(topic.into(), next);
        Some((next, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_aliases() {
        let mut aliases = OutboundAliases::new(2);
        assert_eq!(aliases.alias("a"), Some((1, false)));
        assert_eq!(aliases.alias("b"), Some((2, false)));
        assert_eq!(aliases.alias("c"), None);
        assert_eq!(aliases.alias("a"), Some((1, true)));
        assert_eq!(OutboundAliases::new(0).alias("a"), None);
    }
}
