//! What the type of a thing adds to whatever the thing publishes: user properties, from the thing's
//! attributes and its connection.
//!
//! They are encoded when a connection begins and again when the registry changes; a publication
//! copies them. None is worth losing a publication for: what would be too large goes without.

use mqtt::properties::{self, Builder, Property};

/// What the user properties of one publication may have together, as with AWS.
const USER_PROPERTIES: usize = 8 * 1024;

/// What a PUBLISH has at most besides its topic name, its payload and the properties that travel unaltered:
/// its fixed header, the lengths of the name and of the properties, its identifier, when it expires.
const AROUND: usize = 5 + 2 + 4 + 2 + 5;

/// The bytes that may be added to a publication of so many, where so many can be stored and sent in a packet.
pub fn room(publication: usize, stored: usize, packet: usize) -> usize {
    stored.min(packet.saturating_sub(AROUND)).saturating_sub(publication)
}

/// Encoded user properties, as [`mqtt::Publish::properties`] has them; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct Propagated {
    encoded: Box<[u8]>,
}

impl Propagated {
    /// Encodes names and values in their order, up to the first that is too much.
    pub fn encode(pairs: &[(String, String)]) -> Option<Self> {
        let mut encoded = Builder::new();
        let mut bytes = 0;
        for (name, value) in pairs {
            let property = Property::User(name, value);
            bytes += user_bytes(&property);
            if bytes > USER_PROPERTIES || encoded.add(property).is_err() {
                break;
            }
        }
        let encoded = encoded.finish();
        (!encoded.is_empty()).then(|| Self { encoded: encoded.into() })
    }

    /// The properties of a publication with these after them, so that of a key that the device has sent, too,
    /// the last is what the type says; none when they are more than a
    /// publication may have, or than `room` bytes.
    pub fn after(&self, sent: &[u8], room: usize) -> Option<Vec<u8>> {
        let own = || properties::iter(sent).map(|property| user_bytes(&property)).sum::<usize>();
        let fits = sent.len() + self.encoded.len() <= USER_PROPERTIES
            || own() + self.encoded.len() <= USER_PROPERTIES;
        (fits && self.encoded.len() <= room).then(|| [sent, &*self.encoded].concat())
    }
}

/// What a user property takes in a packet; nothing for other ones.
fn user_bytes(property: &Property<'_>) -> usize {
    match property {
        Property::User(name, value) => 1 + 2 + name.len() + 2 + value.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    fn raw(properties: &[Property<'_>]) -> Vec<u8> {
        let mut builder = Builder::new();
        for property in properties {
            builder.add(*property).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn pairs_are_encoded_in_their_order_as_far_as_there_is_room() {
        let (half, rest) = ("v".repeat(4096 - 6), "w".repeat(4096 - 6));
        let over = "x".repeat(4096 - 5);
        for (pairs, kept) in [
            (vec![], 0),
            (vec![pair("a", "1")], 1),
            (vec![pair("b", "1"), pair("a", ""), pair("b", "2")], 3),
            (vec![pair("a", &half), pair("b", &rest)], 2),
            (vec![pair("a", &half), pair("b", &over)], 1),
            (vec![pair("a", &half), pair("b", &over), pair("c", "3")], 1),
            (vec![pair("a", &"x".repeat(9000))], 0),
            (vec![pair("a", &"x".repeat(70_000))], 0),
        ] {
            let encoded = Propagated::encode(&pairs);
            let expected: Vec<_> =
                pairs[..kept].iter().map(|(name, value)| Property::User(name, value)).collect();
            let shown = format!("{pairs:.40?}");
            assert_eq!(encoded.is_some(), kept > 0, "{shown}");
            let found = encoded.map(|propagated| propagated.encoded.into_vec()).unwrap_or_default();
            assert_eq!(found, raw(&expected), "{shown}");
            assert!(found.len() <= USER_PROPERTIES && properties::is_valid(&found), "{shown}");
        }
    }

    #[test]
    fn there_is_room_in_what_is_stored_and_in_a_packet() {
        for (publication, stored, packet, expected) in [
            (100, 1_000, 10_000, 900),
            (100, 1_000, 1_018, 900),
            (100, 1_000, 1_017, 899),
            (1_000, 2_000, 1_018, 0),
            (1_001, 2_000, 1_018, 0),
            (2_000, 1_000, 10_000, 0),
            (0, 1_000, 10, 0),
        ] {
            assert_eq!(
                room(publication, stored, packet),
                expected,
                "{publication} {stored} {packet}"
            );
        }
    }

    #[test]
    fn they_come_after_what_was_sent_or_not_at_all() {
        let added = Propagated::encode(&[pair("site", "north")]).unwrap();
        let size = added.encoded.len();
        let fill = |bytes: usize| "v".repeat(bytes - 6);
        let (most, one_more) = (fill(USER_PROPERTIES - size), fill(USER_PROPERTIES - size + 1));
        let data = vec![0; 9000];
        for (sent, room, is_added) in [
            (vec![], usize::MAX, true),
            (vec![Property::User("site", "south")], usize::MAX, true),
            (vec![Property::ContentType("text/plain"), Property::User("a", "1")], size, true),
            (vec![Property::User("a", "1")], size - 1, false),
            (vec![], 0, false),
            (vec![Property::User("a", &most)], usize::MAX, true),
            (vec![Property::User("a", &one_more)], usize::MAX, false),
            // Only user properties count.
            (vec![Property::CorrelationData(&data), Property::User("a", "1")], usize::MAX, true),
            (vec![Property::CorrelationData(&data), Property::User("a", &one_more)], size, false),
        ] {
            let shown = format!("{:.60} {room}", format!("{sent:?}"));
            let found = added.after(&raw(&sent), room);
            let all: Vec<_> =
                sent.iter().copied().chain([Property::User("site", "north")]).collect();
            assert_eq!(found, is_added.then(|| raw(&all)), "{shown}");
        }
    }
}
