//! Templates from files: what each comes to, or why it is refused.

use std::collections::BTreeMap;

use fleet::registry::{CertificateId, CertificateNames};
use serde_json::{Map, Value, json};

use crate::{
    CertificateSource, Parameters, Plan, Purpose, Template, TemplateError, certificate_parameters,
    check_given,
};

/// `# title`, the template, `----`, the parameters, `----`, what is expected; cases are parted by a
/// line of `====`.
struct Case<'a> {
    title: &'a str,
    template: &'a str,
    parameters: &'a str,
    expected: &'a str,
}

fn cases(file: &str) -> impl Iterator<Item = Case<'_>> {
    file.split("====\n").map(|case| {
        let (title, rest) = case.trim_start_matches("# ").split_once('\n').unwrap();
        let [template, parameters, expected] =
            rest.split("----\n").collect::<Vec<_>>().try_into().expect(title);
        Case { title, template, parameters, expected: expected.trim() }
    })
}

fn given() -> CertificateId {
    CertificateId::new(&"ab".repeat(32)).unwrap()
}

fn parameters(text: &str) -> Parameters {
    let names = CertificateNames {
        subject: BTreeMap::from([
            ("CommonName".to_owned(), vec!["lamp".to_owned(), "second".to_owned()]),
            ("State".to_owned(), vec!["Bern".to_owned()]),
        ]),
        ..CertificateNames::default()
    };
    let mut parameters: Parameters = serde_json::from_str(text).unwrap();
    parameters.extend(certificate_parameters(&given(), &names));
    parameters
}

fn evaluated(case: &Case<'_>) -> Result<Plan, TemplateError> {
    let template = Template::parse(case.template, Purpose::Fleet)?;
    template.evaluate(&parameters(case.parameters))
}

fn shown(plan: Plan) -> String {
    let mut lines = Vec::new();
    if let Some(thing) = plan.thing {
        let mut line = format!("thing {}", thing.name);
        for (name, value) in &thing.attributes {
            line += &format!(" {name}={value}");
        }
        if let Some(thing_type) = thing.thing_type {
            line += &format!(" type {thing_type}");
        }
        for group in &thing.groups {
            line += &format!(" group {group}");
        }
        if let Some(group) = thing.billing_group {
            line += &format!(" billing {group}");
        }
        let on = [thing.on_attributes, thing.on_type, thing.on_groups];
        lines.push(format!("{line} on {}", on.map(|it| format!("{it:?}")).join(" ")));
    }
    lines.push(format!("certificate {} on {:?}", plan.status.as_str(), plan.on_status));
    for policy in plan.policies {
        let name = policy.name.as_str();
        let name = if name.len() == 64 { &name[..8] } else { name };
        lines.push(format!("policy {name} {}", policy.document.unwrap_or_default()));
    }
    for (key, value) in plan.device_configuration {
        lines.push(format!("device {key}={value}"));
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

#[test]
fn templates_come_to_plans() {
    for case in cases(include_str!("../testdata/plans.txt")) {
        let plan = evaluated(&case).unwrap_or_else(|error| panic!("{}: {error}", case.title));
        assert_eq!(shown(plan), case.expected, "{}", case.title);
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for case in cases(include_str!("../testdata/refused.txt")) {
        let error = evaluated(&case).expect_err(case.title);
        assert_eq!(error.to_string(), case.expected, "{}", case.title);
    }
}

#[test]
fn mappings_and_device_configuration_are_for_fleets_only() {
    let template = json!({
        "Mappings": {},
        "Resources": { "c": { "Type": "AWS::IoT::Certificate", "Properties": { "CertificateId": "x" } } },
    });
    assert!(Template::parse(&template.to_string(), Purpose::Fleet).is_ok());
    let error = Template::parse(&template.to_string(), Purpose::Registration).unwrap_err();
    assert!(error.to_string().contains("unknown key \"Mappings\""), "{error}");
}

#[test]
fn a_certificate_comes_from_one_place() {
    let of = |properties: Value| {
        let template = json!({
            "Parameters": { "CSR": { "Type": "String" } },
            "Resources": { "c": { "Type": "AWS::IoT::Certificate", "Properties": properties } },
        });
        let template = Template::parse(&template.to_string(), Purpose::Registration)?;
        let source = template.certificate(&parameters(r#"{"CSR": "a request"}"#))?;
        Ok((source, template.is_for_given_certificate()))
    };
    let known = CertificateSource::Known(given());
    let pem = |authority: Option<&str>| CertificateSource::Pem {
        pem: "a".to_owned(),
        authority_pem: authority.map(ToOwned::to_owned),
    };
    for (properties, expected) in [
        (json!({ "CertificateId": { "Ref": "AWS::IoT::Certificate::Id" } }), (known.clone(), true)),
        (json!({ "CertificateId": given().as_str().to_uppercase() }), (known, false)),
        (
            json!({ "CertificateSigningRequest": { "Ref": "CSR" } }),
            (CertificateSource::Request("a request".to_owned()), false),
        ),
        (json!({ "CertificatePem": "a" }), (pem(None), false)),
        (json!({ "CertificatePem": "a", "CACertificatePem": "b" }), (pem(Some("b")), false)),
    ] {
        assert_eq!(of(properties.clone()), Ok(expected), "{properties}");
    }
    let refused: [Value; 4] = [
        json!({}),
        json!({ "CertificatePem": "a", "CertificateId": "b" }),
        json!({ "CertificateId": "b", "CACertificatePem": "b" }),
        json!({ "CertificateId": "not an id" }),
    ];
    for properties in refused {
        let refused: Result<_, TemplateError> = of(properties.clone());
        assert!(refused.is_err(), "{properties}");
    }
}

#[test]
fn what_the_node_knows_cannot_be_given() {
    let parameters = |name: &str| Parameters::from([(name.to_owned(), String::new())]);
    assert!(check_given(&parameters("Serial")).is_ok());
    assert!(check_given(&parameters("AWS::IoT::Certificate::Id")).is_err());
}

#[test]
fn what_an_evaluation_makes_is_bounded() {
    let refs = vec![json!({ "Ref": "P" }); 400];
    let template = json!({
        "Parameters": { "P": { "Type": "String" } },
        "Resources": {
            "t": { "Type": "AWS::IoT::Thing", "Properties": { "ThingName": { "Fn::Join": ["", refs] } } },
            "c": { "Type": "AWS::IoT::Certificate", "Properties": { "CertificateId": "x" } },
        },
    });
    let template = Template::parse(&template.to_string(), Purpose::Fleet).unwrap();
    let long = Parameters::from([("P".to_owned(), "x".repeat(100_000))]);
    let error = template.evaluate(&long).unwrap_err();
    assert!(error.problem.contains("262144 bytes"), "{error}");
}

#[test]
fn equal_documents_have_one_name() {
    let name = |document: &str| {
        let mut resources = Map::new();
        let certificate = json!({ "CertificateId": "x" });
        resources.insert(
            "c".into(),
            json!({ "Type": "AWS::IoT::Certificate", "Properties": certificate }),
        );
        let document: Value = serde_json::from_str(document).unwrap();
        resources.insert(
            "p".into(),
            json!({ "Type": "AWS::IoT::Policy", "Properties": { "PolicyDocument": document } }),
        );
        let template = json!({ "Resources": resources }).to_string();
        let template = Template::parse(&template, Purpose::Fleet).unwrap();
        template.evaluate(&Parameters::new()).unwrap().policies[0].name.clone()
    };
    let one = name(r#"{"Version": "2012-10-17", "Statement": [{"b": 1, "a": 2}]}"#);
    assert_eq!(one, name(r#"{"Statement": [{"a": 2, "b": 1}], "Version": "2012-10-17"}"#));
    let text = r#""{\"Statement\":[{\"a\": 2,  \"b\": 1}], \"Version\": \"2012-10-17\"}""#;
    assert_eq!(one, name(text));
    assert_ne!(one, name(r#"{"Statement": [{"a": 2, "b": 2}], "Version": "2012-10-17"}"#));
}
