//! Requests that are understood, and those that are not.

use super::*;

const ARN: &str = "arn:aws:iam::123456789012:role/admin";

fn provider() -> Provider {
    Provider {
        name: "staff".into(),
        issuer: "https://id.example".into(),
        audience: "skein".into(),
        max_session_secs: 7200,
        rules: Vec::new(),
    }
}

fn asked(more: &str) -> Result<Asked, Failure> {
    let text = format!("RoleArn={ARN}&RoleSessionName=me%2Bme@x&WebIdentityToken=a.b.c{more}");
    Asked::read(&Form::read(text.as_bytes())?)
}

#[test]
fn a_role_is_asked_for() {
    for (more, duration_secs, lasts) in [
        ("", None, Some(3600)),
        ("&DurationSeconds=", None, Some(3600)),
        ("&DurationSeconds=900", Some(900), Some(900)),
        ("&DurationSeconds=7200&Unknown=x", Some(7200), Some(7200)),
        ("&DurationSeconds=7201\n", Some(7201), None),
    ] {
        let found = asked(more).unwrap();
        let (session, token) = ("me+me@x".into(), "a.b.c".into());
        let expected = Asked { role_arn: ARN.into(), session, token, duration_secs };
        assert_eq!(found, expected, "{more}");
        assert_eq!(found.duration_secs(&provider()).ok(), lasts, "{more}");
    }
    let brief = Provider { max_session_secs: 900, ..provider() };
    assert_eq!(asked("").unwrap().duration_secs(&brief), Ok(900));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    for (more, said) in [
        ("&DurationSeconds=899", "DurationSeconds must be"),
        ("&DurationSeconds=43201", "DurationSeconds must be"),
        ("&DurationSeconds=1h", "DurationSeconds must be"),
        ("&DurationSeconds=-1", "DurationSeconds must be"),
        ("&Policy={}", "Policy is not offered"),
        ("&PolicyArns.member.1.arn=x", "PolicyArns.member.1.arn is not offered"),
        ("&ProviderId=www.amazon.com", "ProviderId is not offered"),
        ("&RoleArn=x", "twice"),
        ("&x=%ff", "not UTF-8"),
    ] {
        let failure = asked(more).unwrap_err();
        assert_eq!((failure.status, failure.code), (400, "ValidationError"), "{more}");
        assert!(failure.message.contains(said), "{more}: {}", failure.message);
    }
    for (text, said) in [
        (String::new(), "RoleArn is missing"),
        (format!("RoleArn={ARN}"), "RoleSessionName is missing"),
        (format!("RoleArn={ARN}&RoleSessionName=x"), "2 to 64"),
        (format!("RoleArn={ARN}&RoleSessionName=a+b"), "other characters"),
        (format!("RoleArn={ARN}&RoleSessionName=a/b"), "other characters"),
        (format!("RoleArn={ARN}&RoleSessionName=ab"), "WebIdentityToken is missing"),
        (
            format!("RoleArn={ARN}&RoleSessionName=ab&WebIdentityToken={}", "x".repeat(20_001)),
            "WebIdentityToken must have",
        ),
    ] {
        let failure = Form::read(text.as_bytes()).and_then(|form| Asked::read(&form)).unwrap_err();
        assert!(failure.message.contains(said), "{text}: {}", failure.message);
    }
    let many: String = (0..65).map(|number| format!("p{number}=&")).collect();
    assert!(Form::read(many.as_bytes()).is_err());
    assert!(Form::read(b"\xff").is_err());
}

#[test]
fn an_operation_is_of_a_version() {
    for (text, expected) in [
        ("Action=A&Version=2011-06-15", Ok("A")),
        ("Action=A", Ok("A")),
        ("Action=A&Version=2012-01-01", Err("InvalidAction")),
        ("Version=2011-06-15", Err("MissingAction")),
        ("Action=", Err("MissingAction")),
    ] {
        let form = Form::read(text.as_bytes()).unwrap();
        assert_eq!(form.operation().map_err(|failure| failure.code), expected, "{text}");
    }
}

#[test]
fn a_role_has_an_arn() {
    for (arn, expected) in [
        (ARN, Some(("123456789012", "admin"))),
        ("arn:aws-cn:iam::1:role/read-only", Some(("1", "read-only"))),
        ("arn:aws:iam::1:role/path/admin", Some(("1", "path/admin"))),
        ("arn:aws:iam::1:role/", None),
        ("arn:aws:iam::1:user/admin", None),
        ("arn:aws:iam:us-east-1:1:role/admin", None),
        ("arn:aws:sts::1:role/admin", None),
        ("arn:gcp:iam::1:role/admin", None),
        ("admin", None),
    ] {
        assert_eq!(parse_role_arn(arn).ok(), expected, "{arn}");
    }
}

#[test]
fn answers_are_xml() {
    let result = text("Arn", "a<b>&\"c\u{7}\u{ffff}é");
    assert_eq!(result, "<Arn>a&lt;b&gt;&amp;\"c\u{fffd}\u{fffd}é</Arn>");
    assert_eq!(
        xml::answer("Do", &result, "id"),
        format!(
            "<DoResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><DoResult>{result}\
             </DoResult><ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></DoResponse>"
        )
    );
    assert_eq!(
        xml::error(403, "AccessDenied", "no", "id"),
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>AccessDenied</Code><Message>no</Message></Error><RequestId>id</RequestId></ErrorResponse>"
    );
}

#[test]
fn failures_have_the_codes_of_sts() {
    for (failure, status, code) in [
        (Failure::from(AuthError::Missing), 403, "MissingAuthenticationToken"),
        (AuthError::Token.into(), 403, "InvalidClientTokenId"),
        (AuthError::ExpiredToken.into(), 403, "ExpiredToken"),
        (AuthError::Signature.into(), 403, "SignatureDoesNotMatch"),
        (AuthError::Service("iot".into()).into(), 403, "SignatureDoesNotMatch"),
        (AuthError::Algorithm.into(), 403, "IncompleteSignature"),
        (Error::Unavailable.into(), 503, "ServiceUnavailable"),
        (Error::TooLarge(String::new()).into(), 413, "RequestEntityTooLarge"),
        (Error::Internal.into(), 500, "InternalFailure"),
        (InvalidToken::Expired.into(), 400, "ExpiredTokenException"),
        (InvalidToken::Algorithm.into(), 400, "InvalidIdentityToken"),
        (InvalidToken::NotYet.into(), 400, "InvalidIdentityToken"),
        (Unidentified::NoProvider("x".into()).into(), 400, "InvalidIdentityToken"),
        (Unidentified::NoKeys.into(), 400, "IDPCommunicationError"),
        (Unidentified::Token(InvalidToken::Expired).into(), 400, "ExpiredTokenException"),
    ] {
        assert_eq!((failure.status, failure.code), (status, code), "{failure:?}");
    }
}
