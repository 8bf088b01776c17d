//! Which statements of a document speak of a request, for people who wonder about a decision.

use crate::{Action, Arns, Compiled, Decision, Document, Request, Variables};

/// A statement that speaks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Its place in the document, from 0.
    pub statement: usize,
    /// What its author calls it.
    pub sid: Option<String>,
    /// [`Decision::Allowed`] or [`Decision::ExplicitDeny`].
    pub decision: Decision,
}

impl Document {
    /// The statements that allow or deny a request, as [`Compiled::decide`] takes it.
    pub fn explain(
        &self,
        (arns, variables): (&Arns, &Variables),
        action: Action,
        resource: &str,
        request: &Request<'_>,
    ) -> Vec<Spoken> {
        let statements = self.statements.iter().enumerate().map(|(statement, it)| {
            let decision = Compiled::of(it, arns, variables).decide(action, resource, request);
            Spoken { statement, sid: it.sid.as_deref().map(ToOwned::to_owned), decision }
        });
        statements.filter(|spoken| spoken.decision != Decision::ImplicitDeny).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_speak_of_a_request_are_named() {
        let document = Document::parse(
            r#"{"Statement": [
                {"Sid": "all", "Effect": "Allow", "Action": "iot:*", "Resource": "*"},
                {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
                {"Sid": "own", "Effect": "Deny", "Action": "iot:Publish",
                 "Resource": "arn:aws:iot:r:a:topic/${iot:ClientId}/*"}]}"#,
        )
        .unwrap();
        let arns = Arns { partition: "aws".into(), region: "r".into(), account: "a".into() };
        let variables = Variables { client_id: Some("lamp".into()), ..Variables::default() };
        let explain = |action, resource| {
            let spoken =
                document.explain((&arns, &variables), action, resource, &Request::default());
            let spoken = spoken.iter().map(|it| (it.statement, it.sid.as_deref(), it.decision));
            spoken.collect::<Vec<_>>().iter().map(|it| format!("{it:?}")).collect::<Vec<_>>()
        };
        let all = r#"(0, Some("all"), Allowed)"#;
        let own = r#"(2, Some("own"), ExplicitDeny)"#;
        assert_eq!(explain(Action::Publish, "topic/lamp/a"), [all, own]);
        assert_eq!(explain(Action::Publish, "topic/door/a"), [all]);
        assert_eq!(explain(Action::Connect, "client/lamp"), [all, "(1, None, Allowed)"]);
    }
}
