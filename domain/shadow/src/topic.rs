//! Topic names of the shadow service: requests taken apart, replies put together.

/// What a client asks of the shadow service by publishing to a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read the document.
    Get,
    /// Merge into the document.
    Update,
    /// Remove the document.
    Delete,
}

impl Operation {
    /// The last level of the request's topic name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A request topic, taken apart. The names are non-empty levels of the topic name, no more: see
/// [`is_valid_name`](crate::is_valid_name).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The thing whose shadow is meant.
    pub thing: &'a str,
    /// The shadow's name; `None` is the classic shadow.
    pub name: Option<&'a str>,
    /// What is asked.
    pub operation: Operation,
}

impl<'a> Target<'a> {
    /// What error messages call the shadow: its name, or the thing's for the classic shadow.
    pub fn label(&self) -> &'a str {
        self.name.unwrap_or(self.thing)
    }

    /// The topic name of what the service says to this request.
    pub fn accepted(&self) -> String {
        reply(self.thing, self.name, Reply::Accepted(self.operation))
    }

    /// The topic name of a refusal of this request.
    pub fn rejected(&self) -> String {
        reply(self.thing, self.name, Reply::Rejected(self.operation))
    }
}

/// What the service publishes about a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `…/{operation}/accepted`
    Accepted(Operation),
    /// `…/{operation}/rejected`
    Rejected(Operation),
    /// `…/update/delta`
    Delta,
    /// `…/update/documents`
    Documents,
}

/// What a reply has behind the topic name of its request, at most: `/documents`. A topic name has 65,535
/// bytes at most [v5 MQTT-4.7.3-3].
const LONGEST_OUTCOME: usize = 10;

/// Takes `$aws/things/{thing}/shadow[/name/{name}]/{get|update|delete}` apart; any other topic name
/// gives `None`, the service's own replies among them, and whatever is too long to be replied to.
pub fn parse(topic: &str) -> Option<Target<'_>> {
    if topic.len() + LONGEST_OUTCOME > usize::from(u16::MAX) {
        return None;
    }
    let (thing, rest) = topic.strip_prefix("$aws/things/")?.split_once('/')?;
    let rest = rest.strip_prefix("shadow/")?;
    let (name, operation) = match rest.strip_prefix("name/") {
        Some(named) => named.split_once('/').map(|(name, operation)| (Some(name), operation))?,
        None => (None, rest),
    };
    let operation = match operation {
        "get" => Operation::Get,
        "update" => Operation::Update,
        "delete" => Operation::Delete,
        _ => return None,
    };
    (!thing.is_empty() && name != Some("")).then_some(Target { thing, name, operation })
}

/// The topic name on which `reply` is published.
pub fn reply(thing: &str, name: Option<&str>, reply: Reply) -> String {
    let (operation, outcome) = match reply {
        Reply::Accepted(operation) => (operation, "accepted"),
        Reply::Rejected(operation) => (operation, "rejected"),
        Reply::Delta => (Operation::Update, "delta"),
        Reply::Documents => (Operation::Update, "documents"),
    };
    let operation = operation.as_str();
    match name {
        None => format!("$aws/things/{thing}/shadow/{operation}/{outcome}"),
        Some(name) => format!("$aws/things/{thing}/shadow/name/{name}/{operation}/{outcome}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_topics_are_taken_apart() {
        for (topic, expected) in [
            ("$aws/things/lamp/shadow/get", Some(("lamp", None, Operation::Get))),
            ("$aws/things/lamp/shadow/update", Some(("lamp", None, Operation::Update))),
            ("$aws/things/lamp/shadow/delete", Some(("lamp", None, Operation::Delete))),
            ("$aws/things/lamp/shadow/name/cfg/get", Some(("lamp", Some("cfg"), Operation::Get))),
            ("$aws/things/name/shadow/name/name/get", Some(("name", Some("name"), Operation::Get))),
            ("$aws/things/lamp/shadow/name/get", None),
            ("$aws/things/lamp/shadow/name//get", None),
            ("$aws/things//shadow/get", None),
            ("$aws/things/lamp/shadow/get/accepted", None),
            ("$aws/things/lamp/shadow/update/delta", None),
            ("$aws/things/lamp/shadow/name/cfg/update/documents", None),
            ("$aws/things/lamp/shadow/name/cfg/x/update", None),
            ("$aws/things/lamp/shadow/", None),
            ("$aws/things/lamp/shadow", None),
            ("$aws/things/lamp/jobs/get", None),
            ("$aws/things/a/b/shadow/get", None),
            ("aws/things/lamp/shadow/get", None),
            ("", None),
        ] {
            let expected =
                expected.map(|(thing, name, operation)| Target { thing, name, operation });
            assert_eq!(parse(topic), expected, "{topic}");
        }
    }

    #[test]
    fn a_request_has_a_reply_that_can_be_sent() {
        let topic = |length| format!("$aws/things/t/shadow/name/{}/delete", "n".repeat(length));
        let fixed = topic(0).len() + LONGEST_OUTCOME;
        let longest = usize::from(u16::MAX) - fixed;
        assert!(parse(&topic(longest)).is_some() && parse(&topic(longest + 1)).is_none());
        let target = parse(&topic(longest)).map(|target| target.rejected()).unwrap_or_default();
        assert!(target.len() < usize::from(u16::MAX));
    }

    #[test]
    fn replies_go_below_the_request() {
        for (name, kind, expected) in [
            (None, Reply::Accepted(Operation::Get), "$aws/things/t/shadow/get/accepted"),
            (None, Reply::Rejected(Operation::Delete), "$aws/things/t/shadow/delete/rejected"),
            (None, Reply::Delta, "$aws/things/t/shadow/update/delta"),
            (Some("s"), Reply::Documents, "$aws/things/t/shadow/name/s/update/documents"),
        ] {
            assert_eq!(reply("t", name, kind), expected);
        }
        let target = parse("$aws/things/t/shadow/name/s/update").unwrap();
        assert_eq!(target.accepted(), "$aws/things/t/shadow/name/s/update/accepted");
        assert_eq!(target.rejected(), "$aws/things/t/shadow/name/s/update/rejected");
        assert_eq!(target.label(), "s");
    }
}
