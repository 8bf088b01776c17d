//! The authorization code flow: the person logs in with a browser on this machine, which then brings
//! the code to a port that only this machine reaches.

use anyhow::{Context, anyhow, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Provider, form, printable, refusal, say};

/// Where the browser is sent back to.
const CALLBACK: &str = "/callback";

/// What makes sure that an answer belongs to this question.
struct Question {
    issuer: String,
    state: String,
    answers: mpsc::Sender<Callback>,
}

/// What the browser brings.
#[derive(Debug, Default, Deserialize)]
struct Callback {
    state: Option<String>,
    iss: Option<String>,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Callback {
    /// The code, or what the provider has against it.
    fn code(self) -> anyhow::Result<String> {
        match (self.error, self.code) {
            (Some(error), _) => Err(anyhow!(refusal(&error, self.error_description.as_deref()))),
            (None, code) => code.context("the provider sends no code"),
        }
    }
}

pub(super) async fn log_in(provider: &Provider<'_>) -> anyhow::Result<String> {
    let endpoint = provider.metadata.authorization_endpoint.as_deref();
    let endpoint = endpoint.context("the provider has no authorization_endpoint")?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await;
    let listener = listener.context("cannot listen on 127.0.0.1 for the browser")?;
    let redirect = format!("http://{}{CALLBACK}", listener.local_addr()?);
    let (state, nonce, verifier) = (random(), random(), random());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let query = form(&[
        ("response_type", "code"),
        ("client_id", &provider.options.client_id),
        ("redirect_uri", &redirect),
        ("scope", &provider.options.scope),
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let separator = if endpoint.contains('?') { '&' } else { '?' };
    let address = printable(&format!("{endpoint}{separator}{query}"));
    say(&format!("To log in, open this address with a browser on this machine:\n\n{address}\n"));
    let callback = answer(listener, &provider.options.issuer, state).await?;
    let code = callback.code()?;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &redirect),
        ("code_verifier", &verifier),
    ];
    let token = provider.token(&fields).await?.token()?;
    if provider.check(&token)?.text("nonce") != Some(&nonce) {
        bail!("the provider's token is not the answer to this question: its nonce is another one");
    }
    Ok(token)
}

/// Waits for the browser. What belongs to another question is answered, and waited on.
async fn answer(listener: TcpListener, issuer: &str, state: String) -> anyhow::Result<Callback> {
    let (answers, mut answer) = mpsc::channel(1);
    let question = Question { issuer: issuer.to_owned(), state, answers };
    let router = Router::new().route(CALLBACK, get(take)).with_state(std::sync::Arc::new(question));
    let (told, stop) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        // Whoever waits has gone away, or has what it waited for.
        let _ = stop.await;
    });
    let serving = tokio::spawn(serving.into_future());
    let callback = answer.recv().await.context("nobody listens for the browser any more")?;
    // The browser still has to hear that all went well.
    let _ = told.send(());
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), serving).await;
    Ok(callback)
}

async fn take(
    State(question): State<std::sync::Arc<Question>>,
    Query(callback): Query<Callback>,
) -> (StatusCode, &'static str) {
    if !question.is_answered_by(&callback) {
        return (StatusCode::BAD_REQUEST, "This belongs to another login. Begin anew.\n");
    }
    let is_good = callback.error.is_none() && callback.code.is_some();
    // A second one comes too late.
    let _ = question.answers.try_send(callback);
    match is_good {
        true => (StatusCode::OK, "You can close this page and go on in the terminal.\n"),
        false => (StatusCode::FORBIDDEN, "The provider refuses. See the terminal.\n"),
    }
}

impl Question {
    fn is_answered_by(&self, callback: &Callback) -> bool {
        callback.state.as_ref() == Some(&self.state)
            && callback.iss.as_ref().is_none_or(|iss| *iss == self.issuer)
    }
}

/// 256 bits that nobody guesses.
fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_belong_to_a_question() {
        let (answers, _) = mpsc::channel(1);
        let question = Question { issuer: "https://id".into(), state: "s".into(), answers };
        let some = |text: &str| Some(text.to_owned());
        for (state, iss, is_answer) in [
            (some("s"), None, true),
            (some("s"), some("https://id"), true),
            (some("s"), some("https://evil"), false),
            (some("t"), None, false),
            (some(""), None, false),
            (None, None, false),
            (None, some("https://id"), false),
        ] {
            let callback = Callback { state, iss, ..Callback::default() };
            assert_eq!(question.is_answered_by(&callback), is_answer, "{callback:?}");
        }
    }

    #[test]
    fn a_refusal_is_told() {
        let some = |text: &str| Some(text.to_owned());
        let refused =
            Callback { error: some("access_denied"), code: some("c"), ..Callback::default() };
        let error = refused.code().unwrap_err().to_string();
        assert_eq!(error, "the provider refuses: access_denied");
        assert!(Callback::default().code().is_err());
        assert_eq!(Callback { code: some("c"), ..Callback::default() }.code().unwrap(), "c");
    }
}
