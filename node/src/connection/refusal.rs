//! What a refused CONNECT is told, and what the log says beside it.

use mqtt::Reason;
use thiserror::Error;

use crate::denial::Denial;
use crate::identity::Refused;

/// Why a CONNECT is refused.
pub(super) struct Refusal {
    /// What the client is told.
    pub reason: Reason,
    /// What a policy does not allow.
    pub denial: Option<Denial<'static>>,
    /// What has decided if no policy has, where the reason does not say it.
    pub cause: Option<Cause>,
}

/// What refuses a client.
#[derive(Debug, Error)]
pub(super) enum Cause {
    /// Who it is.
    #[error("{0}")]
    Identity(Refused),
    /// See [`Shared::draining`](crate::shared::Shared::draining).
    #[error("the node is being drained")]
    Draining,
    /// The node may not know yet what others have acknowledged.
    #[error("the node is catching up with what others have decided: see /readyz")]
    Behind,
    /// Without a leader, on a full disk or at its end a group opens no session.
    #[error("the group of the client id does not open its session: see /readyz")]
    Undecided,
    /// The groups have too much to do, or an older connection does not end.
    #[error("the group of the client id, or the end of its older connection, takes too long")]
    Late,
}

impl Cause {
    /// Whether a certificate is not known, or not as one that may connect.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Identity(Refused::Unknown | Refused::Inactive))
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Identity(Refused::Authorizer(refusal)) if !refusal.is_passing() => {
                Reason::NotAuthorized
            }
            Self::Identity(Refused::Unavailable | Refused::Authorizer(_)) => {
                Reason::ServerUnavailable
            }
            Self::Identity(_) => Reason::NotAuthorized,
            Self::Draining | Self::Behind | Self::Undecided => Reason::ServerUnavailable,
            Self::Late => Reason::ServerBusy,
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, denial: None, cause: None }
    }
}

impl From<Denial<'_>> for Refusal {
    fn from(denial: Denial<'_>) -> Self {
        Self { denial: Some(denial.kept()), ..Reason::NotAuthorized.into() }
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self { reason: cause.reason(), denial: None, cause: Some(cause) }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Cause::Identity(refused).into()
    }
}
