//! What nodes ask each other about the clients that are connected to them.
//!
//! A question is asked once, and what has no answer in time has none: whoever asks says what it knows
//! without. Peers that speak an older version of the contract are not asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use links::Message;
use links::proto::control_message::Kind;
use links::proto::{Answer, ControlMessage, Question};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::backend::Backend;
use crate::shared::Shared;

/// How long an answer is waited for.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_500);

/// Questions of peers that are looked into at once; more are not answered.
const MAX_ANSWERING: usize = 256;

/// What this node has asked, and what it is asked.
pub struct Inquiries {
    /// Each ends with the call that waits for it.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    last: AtomicU64,
    answering: Arc<Semaphore>,
}

impl Default for Inquiries {
    fn default() -> Self {
        let (waiting, last) = (Mutex::default(), AtomicU64::new(0));
        Self { waiting, last, answering: Arc::new(Semaphore::new(MAX_ANSWERING)) }
    }
}

/// Forgets a question, however its asking ends.
struct Waiting<'a> {
    inquiries: &'a Inquiries,
    token: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inquiries.waiting.lock().remove(&self.token);
    }
}

impl Inquiries {
    /// Asks a node; `None` when it does not answer.
    pub async fn ask(&self, shared: &Shared, node: u64, question: Question) -> Option<Answer> {
        let token = self.last.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(token, answer);
        let _waiting = Waiting { inquiries: self, token };
        let question = Kind::Question(Question { token, ..question });
        shared.mesh.links()?.send(node, question.into()).ok()?;
        tokio::time::timeout(ANSWERED_WITHIN, answered).await.ok()?.ok()
    }

    /// A peer has said these. Runs on the runtime of the links.
    pub fn received(&self, shared: &Arc<Shared>, peer: u64, messages: Vec<ControlMessage>) {
        for message in messages {
            match message.kind {
                Some(Kind::Question(question)) => self.answer(shared, peer, question),
                Some(Kind::Answer(answer)) => {
                    if let Some(waiting) = self.waiting.lock().remove(&answer.token) {
                        // Whoever asked may have gone away.
                        let _ = waiting.send(answer);
                    }
                }
                // Of a later contract.
                None => {}
            }
        }
    }

    fn answer(&self, shared: &Arc<Shared>, peer: u64, question: Question) {
        let Ok(permit) = Arc::clone(&self.answering).try_acquire_owned() else { return };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let _permit = permit;
            // The node stops when it cannot say; the peer does without.
            let Ok(answer) = Backend::new(Arc::clone(&shared)).answer(question).await else {
                return;
            };
            if let Some(links) = shared.mesh.links() {
                let _ = links.send(peer, Message::from(Kind::Answer(answer)));
            }
        });
    }
}
