//! Pages of lists: how many entries a client wants, and the token that asks for the next ones.
//!
//! A token is the place where the next page starts, behind a fingerprint of that place and of the
//! query it belongs to: a token of another list, of other filters, or made up, is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet::registry::{Order, Paging};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::request::Call;

const FINGERPRINT: usize = 8;

/// How a list names its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) size: &'static str,
    pub(crate) token: &'static str,
    /// The name of the next token in the answer.
    pub(crate) next: &'static str,
    pub(crate) max: u64,
    default: u64,
    pub(crate) is_newest_first: bool,
}

/// `maxResults` and `nextToken`.
pub(crate) const NEXT_TOKEN: Style = Style {
    size: "maxResults",
    token: "nextToken",
    next: "nextToken",
    max: 250,
    default: 250,
    is_newest_first: false,
};

/// `pageSize`, `marker` and `isAscendingOrder`.
pub(crate) const MARKER: Style = Style {
    size: "pageSize",
    token: "marker",
    next: "nextMarker",
    max: 250,
    default: 250,
    is_newest_first: true,
};

impl Style {
    /// The same with another number of entries on a page.
    pub(crate) const fn sized(self, size: &'static str, default: u64, max: u64) -> Self {
        Self { size, default, max, ..self }
    }

    /// The same in one order only, from the first.
    pub(crate) const fn forward(self) -> Self {
        Self { is_newest_first: false, ..self }
    }

    /// What the client asks for.
    pub(crate) fn read(self, call: &Call) -> Result<Cursor, Error> {
        let limit = call.number(self.size, 1..=self.max)?.unwrap_or(self.default);
        let is_ascending = !self.is_newest_first || call.flag("isAscendingOrder")?;
        let order = if is_ascending { Order::Ascending } else { Order::Descending };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut cursor = Cursor {
            query: self.fingerprint(call),
            paging: Paging { after: None, limit, order },
            next: self.next,
        };
        if let Some(token) = call.query(self.token) {
            let place = cursor.place(token);
            let invalid = || Error::Invalid(format!("the {} is not valid", self.token));
            cursor.paging.after = Some(place.ok_or_else(invalid)?);
        }
        Ok(cursor)
    }

    /// What a token is tied to: the operation, its labels and principals, its filters and order.
    fn fingerprint(&self, call: &Call) -> Sha256 {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        add(call.operation.name());
        call.labels.iter().for_each(|label| add(label));
        for name in ["x-amzn-principal", "x-amzn-iot-principal", "x-amzn-iot-policy"] {
            add(call.header(name).ok().flatten().unwrap_or_default());
        }
        let mut query: Vec<_> = call
            .query
            .iter()
            .filter(|(name, _)| {
                name != self.size && name != self.token && !name.starts_with("X-Amz-")
            })
            .collect();
        query.sort();
        query.iter().for_each(|(name, value)| {
            add(name);
            add(value);
        });
        hash
    }
}

/// The page that a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    query: Sha256,
    pub(crate) paging: Paging,
    /// The name of the next token in the answer.
    pub(crate) next: &'static str,
}

impl Cursor {
    /// The token for the page behind this place.
    pub(crate) fn token(&self, place: &str) -> String {
        let mut token = self.check(place).to_vec();
        token.extend_from_slice(place.as_bytes());
        STANDARD.encode(token)
    }

    fn place(&self, token: &str) -> Option<String> {
        let token = STANDARD.decode(token).ok()?;
        let (check, place) = token.split_at_checked(FINGERPRINT)?;
        let place = std::str::from_utf8(place).ok()?;
        (self.check(place) == check).then(|| place.to_owned())
    }

    fn check(&self, place: &str) -> [u8; FINGERPRINT] {
        let hash = self.query.clone().chain_update(place).finalize();
        std::array::from_fn(|at| hash[at])
    }
}
