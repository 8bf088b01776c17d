//! The device authorization grant: the person enters a code on another machine, and this one asks until
//! that has happened.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{Provider, printable, refusal, say};

/// How often is asked when the provider does not say it.
const USUAL_SECS: u64 = 5;
/// How much less often when that is too often.
const SLOWER_SECS: u64 = 5;
/// The longest time between two questions.
const LONGEST_SECS: u64 = 60;

/// What is to be entered where.
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    #[serde(default = "usual")]
    interval: u64,
}

fn usual() -> u64 {
    USUAL_SECS
}

/// What comes of a question.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is asked again after so many seconds.
    Wait(u64),
    /// The person has logged in, or will not.
    End,
}

/// What an answer means: so far it was asked each so many seconds.
fn next(error: Option<&str>, every_secs: u64) -> Next {
    match error {
        Some("authorization_pending") => Next::Wait(every_secs),
        Some("slow_down") => Next::Wait((every_secs + SLOWER_SECS).min(LONGEST_SECS)),
        _ => Next::End,
    }
}

pub(super) async fn log_in(provider: &Provider<'_>) -> anyhow::Result<String> {
    let endpoint = provider.metadata.device_authorization_endpoint.as_deref();
    let endpoint = endpoint.context("the provider has no device_authorization_endpoint")?;
    let body = provider.post(endpoint, &[("scope", &provider.options.scope)]).await;
    let body = body.context("cannot ask for a code")?;
    let begun = match serde_json::from_slice::<Begun>(&body) {
        Ok(begun) => begun,
        Err(error) => match serde_json::from_slice::<super::Answer>(&body) {
            Ok(super::Answer { error: Some(error), error_description, .. }) => {
                bail!(refusal(&error, error_description.as_deref()))
            }
            _ => return Err(error).context("the provider's codes cannot be read"),
        },
    };
    let (address, code) = (printable(&begun.verification_uri), printable(&begun.user_code));
    say(&format!("To log in, open {address} on any machine and enter this code:\n\n{code}\n"));
    if let Some(complete) = &begun.verification_uri_complete {
        say(&format!("Or open {}\n", printable(complete)));
    }
    let ends = Instant::now() + Duration::from_secs(begun.expires_in.min(24 * 60 * 60));
    let mut every_secs = begun.interval.clamp(1, LONGEST_SECS);
    while Instant::now() < ends {
        sleep(Duration::from_secs(every_secs)).await;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &begun.device_code),
        ];
        let answer = provider.token(&fields).await?;
        match next(answer.error.as_deref(), every_secs) {
            Next::Wait(secs) => every_secs = secs,
            Next::End => return answer.token(),
        }
    }
    bail!("nobody has entered the code while it was good")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_until_there_is_an_answer() {
        for (error, every_secs, expected) in [
            (Some("authorization_pending"), 5, Next::Wait(5)),
            (Some("slow_down"), 5, Next::Wait(10)),
            (Some("slow_down"), 58, Next::Wait(60)),
            (Some("access_denied"), 5, Next::End),
            (Some("expired_token"), 5, Next::End),
            (Some("anything"), 5, Next::End),
            (None, 5, Next::End),
        ] {
            assert_eq!(next(error, every_secs), expected, "{error:?} {every_secs}");
        }
    }
}
