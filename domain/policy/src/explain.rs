//! Which statements of a document speak of a request, and what they would have to know for that, for
//! people who wonder about a decision.

use std::collections::BTreeSet;

use crate::action::Kind;
use crate::document::{Resources, Statement};
use crate::key::Key;
use crate::{Action, Arns, Compiled, Decision, Document, Request, Variables, glob};

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

    /// The names of variables and condition keys without a value that statements need which are about
    /// the action, and about the resource, or may be with such a value. Conditions that allow for
    /// that (`Null`, `…IfExists`, `ForAllValues:…`) need none.
    pub fn missing(
        &self,
        (arns, variables): (&Arns, &Variables),
        action: Action,
        resource: &str,
        request: &Request<'_>,
    ) -> BTreeSet<String> {
        if !resource.starts_with(action.kind().prefix()) {
            return BTreeSet::new();
        }
        let resource = match action.kind() {
            // Its resource is the text `*`, not an ARN.
            Kind::Everything => resource.to_owned(),
            _ => format!("{}{resource}", arns.prefix()),
        };
        let about = self.statements.iter().filter(|statement| statement.actions.contains(action));
        let keys = about.flat_map(|statement| statement.missing(variables, &resource, request));
        keys.map(|key| key.name().into_owned()).collect()
    }
}

impl Statement {
    fn missing<'a>(
        &'a self,
        variables: &'a Variables,
        resource: &str,
        request: &Request<'_>,
    ) -> Vec<&'a Key> {
        let (templates, is_except) = match &self.resources {
            Resources::These(templates) => (templates, false),
            Resources::Except(templates) => (templates, true),
        };
        let mut keys = Vec::new();
        let mut is_about = is_except;
        for template in templates {
            let pattern = template.loosened(variables).pattern(variables);
            let matches = pattern.is_some_and(|pattern| glob::matches(&pattern, resource));
            let is_certain = template.missing(variables).next().is_none();
            match is_except {
                // It is excepted, whatever the rest says.
                true if matches && is_certain => return Vec::new(),
                // What is not known to be excepted keeps the statement silent.
                true => keys.extend(template.missing(variables)),
                false if matches => {
                    is_about = true;
                    keys.extend(template.missing(variables));
                }
                false => {}
            }
        }
        if is_about {
            let conditions = self.conditions.iter();
            keys.extend(conditions.flat_map(|it| it.missing(variables, request)));
        }
        keys
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

    #[test]
    fn what_statements_would_have_to_know_is_named() {
        let arns = Arns { partition: "aws".into(), region: "r".into(), account: "a".into() };
        let topic = "topic/lamp/a";
        let about = |resource: &str, condition: &str| {
            format!(
                r#"{{"Statement": {{"Effect": "Allow", "Action": "iot:Publish",
                   {resource}, "Condition": {{{condition}}}}}}}"#
            )
        };
        let of_resource =
            |name: &str| about(&format!(r#""Resource": "arn:aws:iot:r:a:{name}""#), "");
        let of_condition = |condition: &str| about(r#""Resource": "*""#, condition);
        let none: &[&str] = &[];
        for (document, expected) in [
            (of_resource("*"), none),
            (of_resource("topic/${iot:ClientId}/*"), &["iot:ClientId"]),
            (of_resource("topic/${ IOT:clientid }/*"), &["iot:ClientId"]),
            // No value would make these match.
            (of_resource("topic/door/${iot:ClientId}"), none),
            (of_resource("client/${iot:ClientId}"), none),
            (
                of_resource("topic/${iot:Connection.Thing.Attributes[room]}/${Foo:Bar}"),
                &["Foo:Bar", "iot:Connection.Thing.Attributes[room]"],
            ),
            (
                of_resource("topic/${iot:Certificate.Subject.CommonName.1}/a"),
                &["iot:Certificate.Subject.CommonName.1"],
            ),
            // These have one.
            (of_resource("topic/${iot:CertificateId}/a"), none),
            (
                about(r#""NotResource": "arn:aws:iot:r:a:topic/${iot:ClientId}""#, ""),
                &["iot:ClientId"],
            ),
            (
                about(
                    r#""NotResource": ["arn:aws:iot:r:a:topic/*", "arn:aws:iot:r:a:topic/${iot:ClientId}"]"#,
                    r#""Bool": {"iot:Connection.Thing.IsAttached": "true"}"#,
                ),
                none,
            ),
            (
                of_condition(r#""Bool": {"iot:Connection.Thing.IsAttached": "true"}"#),
                &["iot:Connection.Thing.IsAttached"],
            ),
            (of_condition(r#""NotIpAddress": {"aws:sourceip": "10.0.0.0/8"}"#), &["aws:SourceIp"]),
            (
                of_condition(r#""StringEquals": {"iot:CertificateId": "${iot:DomainName}"}"#),
                &["iot:DomainName"],
            ),
            (of_condition(r#""StringEquals": {"iot:CertificateId": "other"}"#), none),
            (of_condition(r#""Null": {"iot:DomainName": "true"}"#), none),
            (of_condition(r#""StringEqualsIfExists": {"iot:DomainName": "x"}"#), none),
            (of_condition(r#""ForAllValues:StringEquals": {"iot:DomainName": "x"}"#), none),
            (
                of_condition(
                    r#""ForAnyValue:StringEquals": {"iot:ConnectAttributes": "LastWill"}"#,
                ),
                &["iot:ConnectAttributes"],
            ),
            (of_condition(r#""NumericLessThan": {"aws:EpochTime": "5"}"#), none),
        ] {
            let certificate =
                crate::CertificateVariables { id: "lamp".into(), ..Default::default() };
            let variables = Variables { certificate: Some(certificate), ..Variables::default() };
            let request = Request { now_secs: Some(1), ..Request::default() };
            let parsed = Document::parse(&document).unwrap();
            let missing = |action, resource: &str| {
                parsed.missing((&arns, &variables), action, resource, &request)
            };
            let found = missing(Action::Publish, topic);
            assert!(found.iter().eq(expected), "{document}: {found:?}");
            assert!(missing(Action::Subscribe, "topicfilter/lamp/a").is_empty(), "{document}");
            assert!(missing(Action::Publish, "client/lamp").is_empty(), "{document}");
        }
    }
}
