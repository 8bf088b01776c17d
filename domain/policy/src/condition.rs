//! Conditions of a statement: `{"operator": {"key": values}}`.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::key::{Key, PerRequest};
use crate::template::Template;
use crate::{Request, Variables, date, glob};

/// One key under one operator. All conditions of a statement have to hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    operator: Operator,
    key: Key,
    expected: Vec<Expected>,
}

/// How values are compared, and what is made of several of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Operator {
    test: Test,
    is_negated: bool,
    quantifier: Quantifier,
    if_exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    Arn,
    Bool,
    IpAddress,
    Numeric(Comparison),
    Date(Comparison),
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equals,
    LessThan,
    LessThanEquals,
    GreaterThan,
    GreaterThanEquals,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantifier {
    None,
    ForAllValues,
    ForAnyValue,
}

/// A value in the policy.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Known(Operand),
    /// Has variables in it.
    Open(Template),
}

/// A value in the form that its test compares with.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Text(String),
    Pattern(Vec<u8>),
    Bool(bool),
    Network(IpNet),
    Number(f64),
}

impl Operator {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (quantifier, rest) = match name.split_once(':') {
            None => (Quantifier::None, name),
            Some(("ForAllValues", rest)) => (Quantifier::ForAllValues, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::ForAnyValue, rest),
            Some(_) => return None,
        };
        let (base, if_exists) = match rest.strip_suffix("IfExists") {
            Some(base) => (base, true),
            None => (rest, false),
        };
        let (test, is_negated) = Test::parse(base)?;
        // Existence is what Null asks for.
        let is_plain = quantifier == Quantifier::None && !if_exists;
        (test != Test::Null || is_plain).then_some(Self { test, is_negated, quantifier, if_exists })
    }

    /// Whether the condition holds for these values of its key.
    fn holds(self, values: &[Cow<'_, str>], operands: &[Operand]) -> bool {
        if self.test == Test::Null {
            return operands.contains(&Operand::Bool(values.is_empty()));
        }
        if values.is_empty() {
            return match self.quantifier {
                Quantifier::ForAllValues => true,
                Quantifier::ForAnyValue => self.if_exists,
                Quantifier::None => self.if_exists || self.is_negated,
            };
        }
        let mut equal = 0;
        for value in values {
            match self.test.is_any(value, operands) {
                Some(true) => equal += 1,
                Some(false) => {}
                None => return false,
            }
        }
        let (all, some) = (equal == values.len(), equal > 0);
        match (self.quantifier, self.is_negated) {
            (Quantifier::ForAllValues, false) => all,
            (Quantifier::ForAnyValue, true) => !all,
            (_, false) => some,
            (_, true) => !some,
        }
    }
}

impl Test {
    /// The test and whether its outcome is turned round.
    fn parse(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "StringEquals" => (Self::StringEquals, false),
            "StringNotEquals" => (Self::StringEquals, true),
            "StringEqualsIgnoreCase" => (Self::StringEqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Self::StringEqualsIgnoreCase, true),
            "StringLike" => (Self::StringLike, false),
            "StringNotLike" => (Self::StringLike, true),
            "ArnEquals" | "ArnLike" => (Self::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Self::Arn, true),
            "Bool" => (Self::Bool, false),
            "IpAddress" => (Self::IpAddress, false),
            "NotIpAddress" => (Self::IpAddress, true),
            "Null" => (Self::Null, false),
            _ => {
                let (family, comparison): (fn(Comparison) -> Self, _) =
                    match name.strip_prefix("Numeric") {
                        Some(comparison) => (Self::Numeric, comparison),
                        None => (Self::Date, name.strip_prefix("Date")?),
                    };
                match comparison {
                    "Equals" => (family(Comparison::Equals), false),
                    "NotEquals" => (family(Comparison::Equals), true),
                    "LessThan" => (family(Comparison::LessThan), false),
                    "LessThanEquals" => (family(Comparison::LessThanEquals), false),
                    "GreaterThan" => (family(Comparison::GreaterThan), false),
                    "GreaterThanEquals" => (family(Comparison::GreaterThanEquals), false),
                    _ => return None,
                }
            }
        })
    }

    /// The policy's value as an operand: `Ok(None)` while a variable has no value.
    fn operand(self, value: &Template, variables: &Variables) -> Result<Option<Operand>, String> {
        if matches!(self, Self::StringLike | Self::Arn) {
            return Ok(value.pattern(variables).map(Operand::Pattern));
        }
        let Some(text) = value.text(variables) else { return Ok(None) };
        let operand = match self {
            Self::StringEquals => Some(Operand::Text(text.clone())),
            Self::StringEqualsIgnoreCase => Some(Operand::Text(text.to_lowercase())),
            Self::Bool | Self::Null => boolean(&text).map(Operand::Bool),
            Self::IpAddress => network(&text).map(Operand::Network),
            Self::Numeric(_) => number(&text).map(Operand::Number),
            Self::Date(_) => date::parse(&text).map(Operand::Number),
            Self::StringLike | Self::Arn => None,
        };
        let expected = match self {
            Self::Bool | Self::Null => "true or false",
            Self::IpAddress => "an IP address or network",
            Self::Numeric(_) => "a number",
            _ => "a date",
        };
        operand.map(Some).ok_or_else(|| format!("expected {expected}, found {text:?}"))
    }

    /// Whether a value is what one of the operands says; `None` when it is not of the test's type.
    fn is_any(self, value: &str, operands: &[Operand]) -> Option<bool> {
        let any = |is: &dyn Fn(&Operand) -> bool| Some(operands.iter().any(is));
        let equals = |text: &str| any(&|it| matches!(it, Operand::Text(it) if it == text));
        match self {
            Self::StringEquals => equals(value),
            Self::StringEqualsIgnoreCase => equals(&value.to_lowercase()),
            Self::StringLike => {
                any(&|it| matches!(it, Operand::Pattern(it) if glob::matches(it, value)))
            }
            Self::Arn => any(&|it| matches!(it, Operand::Pattern(it) if matches_arn(it, value))),
            Self::Bool | Self::Null => {
                let value = boolean(value)?;
                any(&|it| *it == Operand::Bool(value))
            }
            Self::IpAddress => {
                let value: IpAddr = value.parse().ok()?;
                any(&|it| matches!(it, Operand::Network(it) if it.contains(&value)))
            }
            Self::Numeric(comparison) => {
                let value = number(value)?;
                any(&|it| matches!(it, Operand::Number(it) if comparison.holds(value, *it)))
            }
            Self::Date(comparison) => {
                let value = date::parse(value)?;
                any(&|it| matches!(it, Operand::Number(it) if comparison.holds(value, *it)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, operand: f64) -> bool {
        match self {
            Self::Equals => value == operand,
            Self::LessThan => value < operand,
            Self::LessThanEquals => value <= operand,
            Self::GreaterThan => value > operand,
            Self::GreaterThanEquals => value >= operand,
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

/// A wildcard does not cross the five colons that part an ARN; a pattern without them is `*` or nothing.
fn matches_arn(pattern: &[u8], arn: &str) -> bool {
    let parts: Vec<&[u8]> = pattern.splitn(6, |byte| *byte == b':').collect();
    if parts.len() < 6 {
        return pattern == [glob::ANY];
    }
    let mut values = arn.splitn(6, ':');
    parts.iter().all(|part| values.next().is_some_and(|value| glob::matches(part, value)))
}

/// What is left of a condition once the connection is known.
pub(crate) enum Folded {
    Holds,
    Fails,
    Open(Check),
}

/// A condition that takes the request to decide.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    operator: Operator,
    key: PerRequest,
    operands: Vec<Operand>,
}

impl Check {
    /// Whether it compares with the present time.
    pub(crate) fn depends_on_time(&self) -> bool {
        matches!(self.key, PerRequest::CurrentTime | PerRequest::EpochTime)
    }
}

impl Condition {
    /// `values` are the policy's; the error says which of them is of the wrong type, and how.
    pub(crate) fn new(
        operator: Operator,
        key: &str,
        values: Vec<Template>,
    ) -> Result<Self, (usize, String)> {
        let mut expected = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            expected.push(match value.is_constant() {
                false => Expected::Open(value),
                true => match operator.test.operand(&value, &Variables::default()) {
                    Ok(Some(operand)) => Expected::Known(operand),
                    Ok(None) => Expected::Open(value),
                    Err(problem) => return Err((index, problem)),
                },
            });
        }
        Ok(Self { operator, key: Key::parse(key), expected })
    }

    /// Whether a connection's variables make a difference.
    pub(crate) fn uses_variables(&self) -> bool {
        let open =
            |expected: &Expected| matches!(expected, Expected::Open(it) if it.uses_variables());
        !matches!(self.key, Key::PerRequest(_)) || self.expected.iter().any(open)
    }

    /// The keys and variables without a value that the condition cannot do without.
    pub(crate) fn missing<'a>(
        &'a self,
        variables: &'a Variables,
        request: &Request<'_>,
    ) -> Vec<&'a Key> {
        let Operator { test, quantifier, if_exists, .. } = self.operator;
        let is_optional = test == Test::Null || if_exists || quantifier == Quantifier::ForAllValues;
        let has_value = match self.key {
            Key::PerRequest(key) => !key.values(request, "").is_empty(),
            _ => !self.key.values(variables).is_empty(),
        };
        let key = Some(&self.key).filter(|_| !is_optional && !has_value);
        let open = self.expected.iter().filter_map(|expected| match expected {
            Expected::Known(_) => None,
            Expected::Open(value) => Some(value.missing(variables)),
        });
        key.into_iter().chain(open.flatten()).collect()
    }

    /// Puts the variables in. `arn_prefix` is what the ARN of a topic begins with.
    pub(crate) fn fold(&self, variables: &Variables, arn_prefix: &str) -> Folded {
        let mut operands = Vec::with_capacity(self.expected.len());
        for expected in &self.expected {
            let operand = match expected {
                Expected::Known(operand) => Some(operand.clone()),
                Expected::Open(value) => {
                    self.operator.test.operand(value, variables).ok().flatten()
                }
            };
            match operand {
                Some(operand) => operands.push(operand),
                // Leaving it out would make a negated condition hold for more.
                None if self.operator.is_negated => return Folded::Fails,
                None => {}
            }
        }
        let Key::PerRequest(key) = self.key else {
            let values = self.key.values(variables);
            let holds = self.operator.holds(&values, &operands);
            return if holds { Folded::Holds } else { Folded::Fails };
        };
        if key == PerRequest::LastWillTopic {
            operands.iter_mut().for_each(|operand| operand.qualify_topic(arn_prefix));
        }
        Folded::Open(Check { operator: self.operator, key, operands })
    }
}

impl Operand {
    /// `topic/…` stands for its ARN.
    fn qualify_topic(&mut self, arn_prefix: &str) {
        match self {
            Self::Text(text) if text.starts_with("topic/") => text.insert_str(0, arn_prefix),
            Self::Pattern(pattern) if pattern.starts_with(b"topic/") => {
                drop(pattern.splice(0..0, arn_prefix.bytes()));
            }
            _ => {}
        }
    }
}

impl Check {
    /// Whether it holds for a request. `arn_prefix` is what the ARN of a topic begins with.
    pub(crate) fn holds(&self, request: &Request<'_>, arn_prefix: &str) -> bool {
        self.operator.holds(&self.key.values(request, arn_prefix), &self.operands)
    }
}

impl PerRequest {
    /// All values. `arn_prefix` is what the ARN of a topic begins with.
    fn values(self, request: &Request<'_>, arn_prefix: &str) -> Vec<Cow<'static, str>> {
        let mut values: Vec<Cow<'static, str>> = Vec::new();
        match self {
            Self::ConnectAttributes => {
                if request.persistent_connect {
                    values.push("PersistentConnect".into());
                }
                if request.last_will_topic.is_some() {
                    values.push("LastWill".into());
                }
            }
            Self::LastWillTopic => {
                let topic = request.last_will_topic;
                values.extend(topic.map(|topic| Cow::from(format!("{arn_prefix}topic/{topic}"))));
            }
            Self::CurrentTime | Self::EpochTime => {
                // Padded, because a date of four digits is a year.
                values.extend(request.now_secs.map(|now| Cow::from(format!("{now:010}"))));
            }
        }
        values
    }
}
