//! The raft thread: starts it, waits for it, ends it.

use crate::config::Config;
use crate::error::Error;
use crate::groups::Inbox;
use crate::host::Host;
use crate::machine::{GroupId, StateMachine};

/// The raft thread of a node.
pub struct Running {}

impl Running {
    /// Blocks until the state is loaded and the log replayed, or the start has failed.
    pub fn wait_started(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Asks for a graceful end: what waits is committed, a last checkpoint written, the log sealed.
    /// [`Host::stopped`] tells when it is done.
    pub fn request_stop(&self) {}

    /// Asks for a graceful end and blocks until it is done.
    pub fn stop(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Starts the raft thread `skein-raft` on the data directory. Each group's machine is made by
/// `machine` on that thread, so it need not be `Send`.
pub fn start<M, H>(
    _config: Config,
    _inbox: Inbox<H::Reply, H::Signal>,
    _machine: impl FnMut(GroupId) -> M + Send + 'static,
    _host: H,
) -> Result<Running, Error>
where
    M: StateMachine,
    H: Host<M>,
{
    Ok(Running {})
}
