//! Texts of a policy with wildcards and variables, before a connection gives these a value.

use crate::Variables;
use crate::glob::{ANY, ONE};
use crate::key::Key;

/// A text such as `arn:aws:iot:*:*:topic/${iot:ClientId}/*`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Any,
    One,
    Variable(Key),
}

impl Template {
    /// `*` and `?` are wildcards, `${*}`, `${?}` and `${$}` these characters, `${name}` a variable.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['*', '?', '$']) {
            push_text(&mut pieces, &rest[..at]);
            let special = &rest[at..];
            let length = match special.strip_prefix("${") {
                Some(variable) => {
                    let end = variable.find('}').ok_or_else(|| format!("unclosed {special:?}"))?;
                    match &variable[..end] {
                        "" => return Err("empty variable \"${}\"".to_owned()),
                        literal @ ("*" | "?" | "$") => push_text(&mut pieces, literal),
                        name => pieces.push(Piece::Variable(Key::parse(name.trim()))),
                    }
                    "${}".len() + end
                }
                None => {
                    match special.as_bytes()[0] {
                        b'*' => pieces.push(Piece::Any),
                        b'?' => pieces.push(Piece::One),
                        _ => push_text(&mut pieces, "$"),
                    }
                    1
                }
            };
            rest = &special[length..];
        }
        push_text(&mut pieces, rest);
        Ok(Self(pieces))
    }

    /// Whether a connection's variables make a difference.
    pub(crate) fn uses_variables(&self) -> bool {
        self.0.iter().any(|piece| match piece {
            Piece::Variable(key) => !matches!(key, Key::PerRequest(_)),
            _ => false,
        })
    }

    /// Whether the text is the same whatever the variables are.
    pub(crate) fn is_constant(&self) -> bool {
        !self.0.iter().any(|piece| matches!(piece, Piece::Variable(_)))
    }

    /// The variables that have no value.
    pub(crate) fn missing<'a>(
        &'a self,
        variables: &'a Variables,
    ) -> impl Iterator<Item = &'a Key> + 'a {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(key) if key.values(variables).is_empty() => Some(key),
            _ => None,
        })
    }

    /// The same with anything in the place of variables that have no value.
    pub(crate) fn loosened(&self, variables: &Variables) -> Self {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Variable(key) if key.values(variables).is_empty() => Piece::Any,
            other => other.clone(),
        });
        Self(pieces.collect())
    }

    /// The pattern for [`crate::glob`]; `None` when a variable has no value to put in.
    pub(crate) fn pattern(&self, variables: &Variables) -> Option<Vec<u8>> {
        let mut pattern = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => pattern.extend_from_slice(text.as_bytes()),
                Piece::Any if pattern.last() == Some(&ANY) => {}
                Piece::Any => pattern.push(ANY),
                Piece::One => pattern.push(ONE),
                Piece::Variable(key) => {
                    pattern.extend_from_slice(key.substitute(variables)?.as_bytes());
                }
            }
        }
        Some(pattern)
    }

    /// The text where there are no wildcards: `*` and `?` are just that.
    pub(crate) fn text(&self, variables: &Variables) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Any => text.push('*'),
                Piece::One => text.push('?'),
                Piece::Variable(key) => text.push_str(&key.substitute(variables)?),
            }
        }
        Some(text)
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}
