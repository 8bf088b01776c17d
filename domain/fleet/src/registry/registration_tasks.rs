//! Registration in bulk: what has become of each task, so that another node goes on where one has died.
//!
//! The lines of a task are done in windows, from the front. Until a window is recorded as done, the task
//! knows which of its lines have made a device: a line that is carried out again makes no second one,
//! whatever its template says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::Timestamp;
use super::names::{CertificateId, RegistrationTaskId};
use super::role_aliases::SessionSecret;
use super::store::Key;
use super::{Indexes, Outcome, Registry, Rejection};

/// The lines of a window.
pub const LINES_AT_ONCE: u64 = 500;
/// How long a task and its reports are kept when it has ended, as with AWS.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// How many tasks there can be.
const TASKS: usize = 1_000;

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationStatus {
    /// Its lines are being carried out.
    InProgress,
    /// All lines have been, whatever came of each.
    Completed,
    /// It could not go on.
    Failed,
    /// Somebody has stopped it.
    Cancelled,
    /// Somebody wants it to stop, and it has not yet.
    Cancelling,
}

impl RegistrationStatus {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::InProgress, Self::Completed, Self::Failed, Self::Cancelled, Self::Cancelling];

    /// The name AWS gives the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Cancelling => "Cancelling",
        }
    }

    /// Whether nothing is done any more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// A task: a template that is carried out once for each line of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationTask {
    /// Its id.
    pub id: RegistrationTaskId,
    /// The template, byte for byte as it came.
    pub template_body: String,
    /// Where the lines are.
    pub bucket: String,
    /// The object there.
    pub key: String,
    /// Kept for tools; rights are not taken from it.
    pub role_arn: String,
    /// How it stands.
    pub status: RegistrationStatus,
    /// Why it could not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How far it has come.
    #[serde(default)]
    pub progress: RegistrationProgress,
    /// Lines of the present window that have made a device, and with which certificate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub done: BTreeMap<u64, CertificateId>,
    /// Signs the links to its reports.
    pub secret: SessionSecret,
    /// When it was started.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
}

/// How far a task has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegistrationProgress {
    /// Lines that are done for good; the first line is number 1.
    pub lines: u64,
    /// Where the next line begins, in bytes.
    pub offset: u64,
    /// Bytes of the object.
    pub size: u64,
    /// Tells the object from another one that has taken its place; none before it was opened.
    pub version: Option<String>,
    /// Lines that have made a device.
    pub succeeded: u64,
    /// Lines that have not.
    pub failed: u64,
    /// Parts of the report on the former.
    pub results: u32,
    /// Parts of the report on the latter.
    pub errors: u32,
}

/// A line of a task that makes a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// The task.
    pub task: RegistrationTaskId,
    /// The number of the line; the first is 1.
    pub line: u64,
}

/// A change to the tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each says what it does")]
pub enum RegistrationCommand {
    /// Starts a task, if no other one runs.
    Start { task: Box<RegistrationTask> },
    /// Records a window as done, if nobody has since `from` lines were.
    Advance {
        task: RegistrationTaskId,
        from: u64,
        progress: Box<RegistrationProgress>,
        at: Timestamp,
    },
    /// Has a task stop.
    Stop { task: RegistrationTaskId, at: Timestamp },
    /// Ends a task of which `from` lines are done.
    End {
        task: RegistrationTaskId,
        from: u64,
        status: RegistrationStatus,
        #[serde(default)]
        message: Option<String>,
        at: Timestamp,
    },
    /// Forgets a task that has ended.
    Forget { task: RegistrationTaskId },
}

impl RegistrationTask {
    /// How much of the object is done, in percent.
    pub fn percentage(&self) -> u64 {
        let RegistrationProgress { offset, size, .. } = self.progress;
        match self.status {
            RegistrationStatus::Completed => 100,
            _ if size == 0 => 0,
            _ => (u128::from(offset.min(size)) * 100 / u128::from(size)) as u64,
        }
    }
}

impl Registry {
    pub(super) fn apply_to_registration_tasks(
        &mut self,
        command: RegistrationCommand,
    ) -> Result<Outcome, Rejection> {
        use RegistrationCommand as C;
        match command {
            C::Start { task } => self.start_registration_task(*task),
            C::Advance { task, from, progress, at } => {
                self.change_registration_task(&task, Some(from), at, |found| {
                    found.progress = *progress;
                    found.done.clear();
                })
            }
            C::Stop { task, at } => self.change_registration_task(&task, None, at, |found| {
                found.status = RegistrationStatus::Cancelling;
            }),
            C::End { task, from, status, message, at } => {
                self.change_registration_task(&task, Some(from), at, |found| {
                    (found.status, found.message) = (status, message);
                    found.done.clear();
                })
            }
            C::Forget { task } => self.forget_registration_task(task),
        }
    }

    fn start_registration_task(&mut self, task: RegistrationTask) -> Result<Outcome, Rejection> {
        if let Some(running) = self.running_registration_task() {
            return Err(Rejection::RegistrationTaskRuns(running.id.clone()));
        }
        if let Some(same) = self.registration_tasks.get(&task.id) {
            let status = same.status.as_str().to_owned();
            return Err(Rejection::RegistrationTaskEnded { task: task.id, status });
        }
        if self.registration_tasks.len() >= TASKS {
            return Err(Rejection::TooManyRegistrationTasks { limit: TASKS });
        }
        let id = task.id.clone();
        self.indexes.add_registration_task(&task);
        self.registration_tasks.insert(id.clone(), task);
        self.dirty.insert(Key::RegistrationTask(id));
        Ok(Outcome::Done)
    }

    /// Changes a task that has not ended, and of which so many lines are done if that is said.
    fn change_registration_task(
        &mut self,
        id: &RegistrationTaskId,
        from: Option<u64>,
        at: Timestamp,
        change: impl FnOnce(&mut RegistrationTask),
    ) -> Result<Outcome, Rejection> {
        let not_found = || Rejection::RegistrationTaskNotFound(id.clone());
        let task = self.registration_tasks.get_mut(id).ok_or_else(not_found)?;
        if task.status.has_ended() {
            let status = task.status.as_str().to_owned();
            return Err(Rejection::RegistrationTaskEnded { task: id.clone(), status });
        }
        if from.is_some_and(|from| from != task.progress.lines) {
            return Err(Rejection::RegistrationTaskMoved(id.clone()));
        }
        change(task);
        task.modified = at;
        if task.status.has_ended() {
            self.indexes.running_registration_task = None;
            self.indexes.add_registration_task(task);
        }
        self.dirty.insert(Key::RegistrationTask(id.clone()));
        Ok(Outcome::Done)
    }

    fn forget_registration_task(&mut self, id: RegistrationTaskId) -> Result<Outcome, Rejection> {
        let Some(task) = self.registration_tasks.get(&id) else {
            return Err(Rejection::RegistrationTaskNotFound(id));
        };
        if !task.status.has_ended() {
            return Err(Rejection::RegistrationTaskRuns(id));
        }
        self.indexes.registration_tasks_by_age.remove(&(task.created, id.clone()));
        self.indexes.ended_registration_tasks.remove(&(task.modified, id.clone()));
        self.registration_tasks.remove(&id);
        self.dirty.insert(Key::RegistrationTask(id));
        Ok(Outcome::Done)
    }

    /// Whether a line may make a device: it is of the present window of its task, and has made none.
    pub(super) fn check_task_line(&self, of: &TaskLine) -> Result<(), Rejection> {
        let TaskLine { task: id, line } = of;
        let not_found = || Rejection::RegistrationTaskNotFound(id.clone());
        let task = self.registration_tasks.get(id).ok_or_else(not_found)?;
        if task.status.has_ended() {
            let status = task.status.as_str().to_owned();
            return Err(Rejection::RegistrationTaskEnded { task: id.clone(), status });
        }
        if let Some(certificate) = task.done.get(line) {
            let certificate = certificate.clone();
            return Err(Rejection::RegistrationLineDone { line: *line, certificate });
        }
        let lines = task.progress.lines;
        if *line <= lines || *line > lines.saturating_add(LINES_AT_ONCE) {
            return Err(Rejection::RegistrationTaskMoved(id.clone()));
        }
        Ok(())
    }

    /// A line has made a device.
    pub(super) fn note_task_line(&mut self, of: TaskLine, certificate: CertificateId) {
        if let Some(task) = self.registration_tasks.get_mut(&of.task) {
            task.done.insert(of.line, certificate);
            self.dirty.insert(Key::RegistrationTask(of.task));
        }
    }

    /// A task by its id.
    pub fn registration_task(&self, id: &str) -> Option<&RegistrationTask> {
        self.registration_tasks.get(id)
    }

    /// The task that has not ended; there is at most one.
    pub fn running_registration_task(&self) -> Option<&RegistrationTask> {
        self.registration_tasks.get(self.indexes.running_registration_task.as_ref()?)
    }

    /// A task that ended so long ago that it is to be forgotten, with its reports.
    pub fn expired_registration_task(&self, now: Timestamp) -> Option<&RegistrationTask> {
        let (ended, id) = self.indexes.ended_registration_tasks.first()?;
        let is_over = ended.0.saturating_add(KEPT_MS) <= now.0;
        self.registration_tasks.get(id).filter(|_| is_over)
    }
}

impl Indexes {
    pub(super) fn add_registration_task(&mut self, task: &RegistrationTask) {
        let id = task.id.clone();
        self.registration_tasks_by_age.insert((task.created, id.clone()));
        if task.status.has_ended() {
            self.ended_registration_tasks.insert((task.modified, id));
        } else {
            self.running_registration_task = Some(id);
        }
    }
}
