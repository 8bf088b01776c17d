//! What is said between nodes, and the frames that carry it.

use prost::Message as _;

use crate::proto::{
    self, ControlBatch, ControlMessage, FanoutBatch, FanoutMessage, Frame, GroupMessage, RaftBatch,
    control_message, fanout_message, frame::Kind,
};

/// The longest message that the contract allows, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Messages of Raft groups.
    Raft,
    /// Publications between nodes and what they depend on.
    Fanout,
    /// Questions that a node asks another and their answers.
    Control,
}

impl Purpose {
    /// All of them; the place of each is its `as usize`.
    pub const ALL: [Self; 3] = [Self::Raft, Self::Fanout, Self::Control];

    /// The purpose as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Fanout => "fanout",
            Self::Control => "control",
        }
    }

    /// Its number in the contract.
    pub(crate) fn number(self) -> i32 {
        let number = match self {
            Self::Raft => proto::Purpose::Raft,
            Self::Fanout => proto::Purpose::Fanout,
            Self::Control => proto::Purpose::Control,
        };
        number.into()
    }
}

/// Who sends on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer; it has dialled.
    Incoming,
    /// This node; it has dialled.
    Outgoing,
}

impl Direction {
    /// The direction as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Incoming => "in",
            Self::Outgoing => "out",
        }
    }
}

/// One of the streams between this node and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The peer's id.
    pub peer: u64,
    /// What it carries.
    pub purpose: Purpose,
    /// Who sends on it.
    pub direction: Direction,
}

/// Something to say to a peer.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A message of a Raft group.
    Raft(GroupMessage),
    /// A message of the fan-out.
    Fanout(FanoutMessage),
    /// A question or an answer.
    Control(ControlMessage),
}

impl From<control_message::Kind> for Message {
    fn from(kind: control_message::Kind) -> Self {
        Self::Control(ControlMessage { kind: Some(kind) })
    }
}

impl From<fanout_message::Kind> for Message {
    fn from(kind: fanout_message::Kind) -> Self {
        Self::Fanout(FanoutMessage { kind: Some(kind) })
    }
}

impl Message {
    /// The stream it goes on.
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Raft(_) => Purpose::Raft,
            Self::Fanout(_) => Purpose::Fanout,
            Self::Control(_) => Purpose::Control,
        }
    }

    /// The first version of the contract that has such messages.
    pub(crate) fn since(&self) -> u32 {
        match self {
            Self::Raft(_) | Self::Fanout(_) => 1,
            Self::Control(_) => 2,
        }
    }

    /// Bytes of what it carries.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Raft(message) => message.message.len(),
            Self::Fanout(message) => message.encoded_len(),
            Self::Control(message) => message.encoded_len(),
        }
    }
}

/// What a peer has sent at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Messages of Raft groups.
    Raft(Vec<GroupMessage>),
    /// Messages of the fan-out.
    Fanout(Vec<FanoutMessage>),
    /// Questions and answers.
    Control(Vec<ControlMessage>),
}

impl Batch {
    /// What a frame holds; `None` when it does not belong on a stream with this purpose.
    pub(crate) fn from_frame(frame: Frame, purpose: Purpose) -> Option<Self> {
        match (frame.kind, purpose) {
            (Some(Kind::Raft(batch)), Purpose::Raft) => Some(Self::Raft(batch.messages)),
            (Some(Kind::Fanout(batch)), Purpose::Fanout) => Some(Self::Fanout(batch.messages)),
            (Some(Kind::Control(batch)), Purpose::Control) => Some(Self::Control(batch.messages)),
            _ => None,
        }
    }

    /// Bytes of what it carries.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Raft(messages) => messages.iter().map(|message| message.message.len()).sum(),
            Self::Fanout(messages) => messages.iter().map(FanoutMessage::encoded_len).sum(),
            Self::Control(messages) => messages.iter().map(ControlMessage::encoded_len).sum(),
        }
    }
}

/// The frame for messages that waited for the same stream, which is for this.
pub(crate) fn frame(purpose: Purpose, messages: impl Iterator<Item = Message>) -> Frame {
    let (mut raft, mut fanout) = (RaftBatch::default(), FanoutBatch::default());
    let mut control = ControlBatch::default();
    for message in messages {
        match message {
            Message::Raft(message) => raft.messages.push(message),
            Message::Fanout(message) => fanout.messages.push(message),
            Message::Control(message) => control.messages.push(message),
        }
    }
    let kind = match purpose {
        Purpose::Raft => Kind::Raft(raft),
        Purpose::Fanout => Kind::Fanout(fanout),
        Purpose::Control => Kind::Control(control),
    };
    Frame { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Question, Sync};

    #[test]
    fn a_frame_holds_what_its_stream_is_for() {
        let raft = GroupMessage { group: 1, message: vec![1].into() };
        let sync: Message = fanout_message::Kind::Sync(Sync { token: 7, ..Sync::default() }).into();
        assert_eq!(sync.purpose(), Purpose::Fanout);
        let question = control_message::Kind::Question(Question::default());
        let question = ControlMessage { kind: Some(question) };
        let [of_raft, of_fanout] = [Message::Raft(raft.clone()), sync.clone()];
        let Message::Fanout(sync) = sync else { panic!("made as one of the fan-out") };
        let of_control = Message::Control(question.clone());
        for (message, purpose, batch) in [
            (of_raft, Purpose::Raft, Batch::Raft(vec![raft])),
            (of_fanout, Purpose::Fanout, Batch::Fanout(vec![sync])),
            (of_control, Purpose::Control, Batch::Control(vec![question])),
        ] {
            let frame = frame(purpose, [message].into_iter());
            assert_eq!(Batch::from_frame(frame.clone(), purpose), Some(batch));
            for other in Purpose::ALL.into_iter().filter(|other| *other != purpose) {
                assert_eq!(Batch::from_frame(frame.clone(), other), None);
            }
        }
    }
}
