//! Registration in bulk: the node that leads the registry carries out its task, and the next leader goes
//! on where one has died.
//!
//! The lines are done in windows. When all of one are done their reports are written, and then the
//! registry records the window: what is recorded has its reports. Until then the registry knows which
//! lines have made a device, so a window that is done again makes none twice.

mod place;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use api::Backend as _;
use api::backend::{ProposeError, Report, ReportKind};
use api::registration_tasks::{Interrupted, Registered, Registering};
use bytes::Bytes;
use cluster::GroupId;
use fleet::registry::{
    Command, LINES_AT_ONCE, RegistrationCommand, RegistrationProgress, RegistrationStatus,
    RegistrationTask, RegistrationTaskId, Timestamp,
};
use futures_util::{StreamExt, stream};
use metrics::{counter, gauge};
use provisioning::{Line, Lines, Purpose, Template, check_object_key};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use self::place::{Object, Place, blocking};
use crate::backend::Backend;
use crate::clock::now_ms;
use crate::config::{self, Config, S3};
use crate::host::Machine;
use crate::identity;
use crate::shared::Shared;

/// Lines that are carried out at the same time: few, for everybody else shall notice nothing.
const AT_ONCE: usize = 4;
/// Bytes of lines in a window, but for its last one: its reports are held until it is done.
const WINDOW_BYTES: u64 = 4 << 20;
/// Before something is tried again that could not be done now.
const PAUSE: Duration = Duration::from_millis(250);
/// So many of those at most before a line is tried again; each time they are twice as many.
const PAUSES: u32 = 32;
/// Between two lines of the log that say how a task gets on.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// What a node knows of registrations in bulk.
#[derive(Debug)]
pub struct Registrations {
    config: config::Registration,
    due: Notify,
}

impl Registrations {
    /// As a node is configured.
    pub fn new(config: &Config) -> Self {
        Self { config: config.registration.clone(), due: Notify::new() }
    }

    /// There is something to do for the leader of the registry.
    pub fn wake(&self) {
        self.due.notify_one();
    }

    /// Whether this node knows where the objects of a bucket are; else what its configuration lacks.
    pub fn check_bucket(&self, bucket: &str) -> Result<(), String> {
        if self.config.buckets.is_empty() {
            return Err(
                "this node has no place to register things from: set registration.buckets in its \
                        configuration"
                    .into(),
            );
        }
        match self.config.buckets.contains_key(bucket) {
            true => Ok(()),
            false => Err(format!("this node has no '{bucket}' in registration.buckets")),
        }
    }

    /// A part of a report; none when it is not there.
    pub async fn report(&self, report: &Report) -> anyhow::Result<Option<Bytes>> {
        self.reports().await?.read(&file(report)).await
    }

    async fn bucket(&self, bucket: &str) -> anyhow::Result<Place> {
        self.check_bucket(bucket).map_err(anyhow::Error::msg)?;
        let place = self.config.buckets.get(bucket).context("it has gone")?;
        self.open(place.clone()).await
    }

    async fn reports(&self) -> anyhow::Result<Place> {
        let place = self.config.reports.clone();
        self.open(place.context("this node has no registration.reports")?).await
    }

    async fn open(&self, place: PathBuf) -> anyhow::Result<Place> {
        let s3 = self.config.s3.clone();
        blocking(move || Place::open(&place, &s3)).await
    }
}

/// Whether a place of the configuration can be used; nobody is asked.
pub fn check_place(at: &Path, s3: &S3) -> anyhow::Result<()> {
    match Place::open(at, s3)? {
        Place::Folder(folder) if !folder.is_dir() => {
            anyhow::bail!("there is no folder {}", folder.display())
        }
        _ => Ok(()),
    }
}

/// Where a part of a report is.
fn file(report: &Report) -> String {
    format!("{}/{}.json", report.task, report.name())
}

/// Carries out the tasks of the registry whenever this node leads it, until the node stops.
pub async fn run(shared: Arc<Shared>, registering: Registering<Backend>) {
    let backend = Backend::new(Arc::clone(&shared));
    let leader = Leader { shared, backend, registering };
    loop {
        leader.shared.registrations.due.notified().await;
        leader.forget().await;
        if let Some(task) = leader.look(|task| task.cloned()).await.flatten() {
            leader.carry_out(task).await;
        }
    }
}

/// Why a task is not gone on with here.
enum Halt {
    /// It has ended, or it is another node's business now.
    Over,
    /// Somebody has stopped it.
    Cancelled,
    /// It cannot be gone on with anywhere.
    Failed(String),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

struct Leader {
    shared: Arc<Shared>,
    backend: Backend,
    registering: Registering<Backend>,
}

impl Leader {
    /// Looks at the task that runs; none when this node does not lead the registry.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(Option<&RegistrationTask>) -> T + Send + 'static,
    ) -> Option<T> {
        let meta = GroupId::META;
        let looked = identity::look(&self.shared, move |groups| {
            if !groups.leads(meta) {
                return None;
            }
            let registry = groups.get(meta).and_then(Machine::registry)?;
            Some(look(registry.running_registration_task()))
        });
        looked.await.flatten()
    }

    async fn carry_out(&self, task: RegistrationTask) {
        let (id, lines) = (task.id.clone(), task.progress.lines);
        info!(task = %id, bucket = task.bucket, key = task.key, lines, "registering things in bulk");
        let mut run =
            Run { leader: self, progress: task.progress.clone(), task, said: Instant::now() };
        let (status, message) = match run.finish().await {
            Ok(()) => (RegistrationStatus::Completed, None),
            Err(Halt::Cancelled) => (RegistrationStatus::Cancelled, None),
            Err(Halt::Over) => {
                info!(task = %id, "registering things in bulk: this node does not go on");
                return;
            }
            Err(Halt::Failed(why)) => (RegistrationStatus::Failed, Some(why)),
        };
        run.say();
        let from = run.progress.lines;
        if let (RegistrationStatus::Failed, Some(why)) = (status, &message) {
            warn!(task = %id, why, lines = from, "things are not registered in bulk any more");
        }
        let (succeeded, failed) = (run.progress.succeeded, run.progress.failed);
        let at = Timestamp(now_ms());
        let end = RegistrationCommand::End { task: id.clone(), from, status, message, at };
        // Where that is not done, the task is still there, and is ended again.
        if self.propose(end).await.is_continue() {
            let status = status.as_str();
            info!(task = %id, status, succeeded, failed, "a registration in bulk has ended");
        }
    }

    /// Has the registry change, however long that takes; not when it refuses.
    async fn propose(&self, command: RegistrationCommand) -> ControlFlow<()> {
        loop {
            let command = Command::Registration(command.clone());
            match self.backend.registry_propose(command).await {
                Ok(_) => return ControlFlow::Continue(()),
                Err(ProposeError::Rejected(_)) => return ControlFlow::Break(()),
                Err(ProposeError::Unavailable(_)) if self.pause().await.is_some() => {}
                Err(ProposeError::Unavailable(_)) => return ControlFlow::Break(()),
            }
        }
    }

    /// Waits before something is tried again, and looks at the task then; none when it is not this
    /// node's business any more.
    async fn pause(&self) -> Option<RegistrationStatus> {
        tokio::time::sleep(PAUSE).await;
        self.look(|task| task.map(|it| it.status)).await.flatten()
    }

    /// Forgets tasks that have ended long ago, with their reports.
    async fn forget(&self) {
        let now = Timestamp(now_ms());
        loop {
            let meta = GroupId::META;
            let expired = identity::look(&self.shared, move |groups| {
                let registry = groups.get(meta).and_then(Machine::registry)?;
                registry.expired_registration_task(now).cloned()
            });
            let Some(task) = expired.await.flatten() else { return };
            if let Err(error) = self.remove_reports(&task).await {
                let (task, error) = (task.id.as_str(), format!("{error:#}"));
                warn!(task, error, "reports on things registered in bulk are left behind");
            }
            let forget = RegistrationCommand::Forget { task: task.id };
            if self.backend.registry_propose(Command::Registration(forget)).await.is_err() {
                return;
            }
        }
    }

    async fn remove_reports(&self, task: &RegistrationTask) -> anyhow::Result<()> {
        let place = self.shared.registrations.reports().await?;
        let RegistrationProgress { results, errors, .. } = task.progress;
        for (kind, parts) in [(ReportKind::Results, results), (ReportKind::Errors, errors)] {
            for part in 0..parts {
                place.remove(&file(&Report { task: task.id.clone(), kind, part })).await?;
            }
        }
        place.remove_folder(task.id.as_str()).await
    }
}

/// What has come of a window.
struct Carried {
    registered: Vec<Registered>,
    /// The last line before the first one that nothing has come of, and where it ends.
    so_far: Option<(u64, u64)>,
    /// Whether something has come of a line behind that.
    is_open: bool,
    /// Why not all of it was carried out.
    halt: Option<Halt>,
}

/// A task that is carried out.
struct Run<'a> {
    leader: &'a Leader,
    task: RegistrationTask,
    /// What is recorded.
    progress: RegistrationProgress,
    /// When the log was last told.
    said: Instant,
}

impl Run<'_> {
    /// Carries out the lines that are left.
    async fn finish(&mut self) -> Result<(), Halt> {
        let RegistrationTask { template_body, bucket, key, .. } = &self.task;
        let template = Template::parse(template_body, Purpose::Registration)
            .map_err(|error| Halt::Failed(format!("templateBody: {error}")))?;
        check_object_key(key).map_err(|why| Halt::Failed(format!("inputFileKey {why}")))?;
        let registrations = &self.leader.shared.registrations;
        let reports = registrations.reports().await?;
        let opened = async { registrations.bucket(bucket).await?.object(key).await };
        let object = opened.await.with_context(|| format!("cannot read {bucket}/{key}"))?;
        match &self.progress.version {
            None => {
                let (size, version) = (object.size, Some(object.version.clone()));
                let progress = RegistrationProgress { size, version, ..self.progress.clone() };
                self.advance(progress).await?;
            }
            Some(version) if *version == object.version => {}
            Some(_) => {
                let why = format!("{bucket}/{key} is not the object any more that was begun with");
                return Err(Halt::Failed(why));
            }
        }
        let mut reader = Reader::new(object, &self.progress);
        loop {
            match self.leader.look(|task| task.map(|it| (it.id.clone(), it.status))).await.flatten()
            {
                Some((id, _)) if id != self.task.id => return Err(Halt::Over),
                Some((_, RegistrationStatus::Cancelling)) => return Err(Halt::Cancelled),
                Some(_) => {}
                None => return Err(Halt::Over),
            }
            let window = reader.window().await.with_context(|| {
                format!("cannot read on in {}/{}", self.task.bucket, self.task.key)
            })?;
            let Some(end) = window.last().map(|line| (line.number, line.end)) else {
                return Ok(());
            };
            let Carried { registered, so_far, is_open, halt } =
                self.register(&template, window).await;
            let end = match &halt {
                None => Some(end),
                Some(Halt::Over) => None,
                // Nobody goes on with it.
                Some(Halt::Cancelled) => so_far,
                // Until it has ended another node may go on with it, and would make devices again that
                // are behind a line that has made none.
                Some(Halt::Failed(_)) => so_far.filter(|_| !is_open),
            };
            if let Some(end) = end {
                self.record(&reports, registered, end).await?;
            }
            if let Some(halt) = halt {
                return Err(halt);
            }
        }
    }

    /// Carries out the lines of a window, some at a time. When they cannot be gone on with, those that
    /// are begun are finished.
    async fn register(&self, template: &Template, window: Vec<Line>) -> Carried {
        let halt = OnceLock::new();
        let lines = window.into_iter().filter(|line| !line.is_blank());
        let carried = stream::iter(lines.map(|line| self.carry_out(template, line, &halt)));
        let mut carried = carried.buffered(AT_ONCE);
        let (mut registered, mut so_far) = (Vec::new(), None);
        let (mut is_whole, mut is_open) = (true, false);
        while let Some((end, line)) = carried.next().await {
            let Some(line) = line else {
                is_whole = false;
                continue;
            };
            registered.push(line);
            match is_whole {
                true => so_far = Some(end),
                false => is_open = true,
            }
        }
        drop(carried);
        Carried { registered, so_far, is_open, halt: halt.into_inner() }
    }

    /// Carries out a line, and gives where it ends; nothing comes of it when the task does not go on.
    async fn carry_out(
        &self,
        template: &Template,
        line: Line,
        halt: &OnceLock<Halt>,
    ) -> ((u64, u64), Option<Registered>) {
        let id: &RegistrationTaskId = &self.task.id;
        let end = (line.number, line.end);
        let mut pauses = 1;
        while halt.get().is_none() {
            let now = Timestamp(now_ms());
            match self.leader.registering.register(template, id, &line, now).await {
                Ok(registered) => return (end, Some(registered)),
                Err(Interrupted::Failed { line, why }) => {
                    // The first one says why.
                    let _ = halt.set(Halt::Failed(why));
                    return (end, Some(line));
                }
                Err(Interrupted::Over) => {
                    let _ = halt.set(Halt::Over);
                }
                Err(Interrupted::Again) => {
                    self.wait(pauses, halt).await;
                    pauses = PAUSES.min(pauses * 2);
                }
            }
        }
        (end, None)
    }

    /// Waits before a line is tried again.
    async fn wait(&self, pauses: u32, halt: &OnceLock<Halt>) {
        for _ in 0..pauses {
            if halt.get().is_some() {
                return;
            }
            let found = match self.leader.pause().await {
                Some(RegistrationStatus::Cancelling) => Halt::Cancelled,
                Some(_) => continue,
                None => Halt::Over,
            };
            let _ = halt.set(found);
            return;
        }
    }

    /// Writes the reports on a window, and then records it; it ends with this line, and there.
    async fn record(
        &mut self,
        reports: &Place,
        registered: Vec<Registered>,
        (lines, offset): (u64, u64),
    ) -> Result<(), Halt> {
        let mut progress = RegistrationProgress { lines, offset, ..self.progress.clone() };
        for kind in [ReportKind::Results, ReportKind::Errors] {
            let of_kind = registered.iter().filter(|it| it.kind == kind);
            let (mut count, mut content) = (0, String::new());
            for line in of_kind {
                content.push_str(&line.report);
                content.push('\n');
                count += 1;
            }
            let (parts, total, result) = match kind {
                ReportKind::Results => (&mut progress.results, &mut progress.succeeded, "success"),
                ReportKind::Errors => (&mut progress.errors, &mut progress.failed, "failure"),
            };
            if count == 0 {
                continue;
            }
            let report = Report { task: self.task.id.clone(), kind, part: *parts };
            let written = reports.write(&file(&report), content.into()).await;
            written.context("cannot write a report")?;
            *parts += 1;
            *total += count;
            counter!("registration_lines_total", "result" => result).increment(count);
        }
        self.advance(progress).await
    }

    async fn advance(&mut self, progress: RegistrationProgress) -> Result<(), Halt> {
        let task = self.task.id.clone();
        let (from, at) = (self.progress.lines, Timestamp(now_ms()));
        let recorded = Box::new(progress.clone());
        let advance = RegistrationCommand::Advance { task, from, progress: recorded, at };
        if self.leader.propose(advance).await.is_break() {
            return Err(Halt::Over);
        }
        self.progress = progress;
        let RegistrationProgress { offset, size, .. } = self.progress;
        gauge!("registration_progress_ratio").set(offset as f64 / size.max(1) as f64);
        if self.said.elapsed() >= SAID_EVERY {
            self.say();
        }
        Ok(())
    }

    fn say(&mut self) {
        self.said = Instant::now();
        let RegistrationProgress { lines, offset, size, succeeded, failed, .. } = self.progress;
        info!(
            task = %self.task.id,
            lines,
            succeeded,
            failed,
            bytes = offset,
            of_bytes = size,
            "registering things in bulk"
        );
    }
}

/// Reads the lines of an object from front to back.
struct Reader {
    object: Object,
    /// Where is read next.
    at: u64,
    /// What was read and is not taken yet.
    held: Bytes,
    /// None when the last line was taken.
    lines: Option<Lines>,
}

impl Reader {
    fn new(object: Object, from: &RegistrationProgress) -> Self {
        let lines = Some(Lines::after(from.lines, from.offset));
        Self { object, at: from.offset, held: Bytes::new(), lines }
    }

    /// The next lines; none at the end.
    async fn window(&mut self) -> anyhow::Result<Vec<Line>> {
        let mut window = Vec::new();
        let mut bytes = 0;
        while (window.len() as u64) < LINES_AT_ONCE && bytes < WINDOW_BYTES {
            let Some(line) = self.line().await? else { break };
            bytes += line.end - line.offset;
            window.push(line);
        }
        Ok(window)
    }

    async fn line(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            let Some(lines) = &mut self.lines else { return Ok(None) };
            let mut rest = &self.held[..];
            let line = lines.next(&mut rest);
            self.held = self.held.slice(self.held.len() - rest.len()..);
            if line.is_some() {
                return Ok(line);
            }
            self.held = self.object.read(self.at).await?;
            self.at += self.held.len() as u64;
            if self.held.is_empty() {
                return Ok(self.lines.take().and_then(Lines::last));
            }
        }
    }
}
