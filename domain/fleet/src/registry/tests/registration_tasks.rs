//! Tasks that register in bulk: one at a time, each line once, and who records what.

use super::*;

fn id(name: &str) -> RegistrationTaskId {
    RegistrationTaskId::new(name).unwrap()
}

pub(super) fn start(name: &str, at: u64) -> Command {
    Command::Registration(RegistrationCommand::Start {
        task: Box::new(RegistrationTask {
            id: id(name),
            template_body: "{}".into(),
            bucket: "bucket".into(),
            key: "key".into(),
            role_arn: "arn:aws:iam::000000000000:role/r".into(),
            status: RegistrationStatus::InProgress,
            message: None,
            progress: RegistrationProgress::default(),
            done: BTreeMap::new(),
            secret: SessionSecret([7; 32]),
            created: Timestamp(at),
            modified: Timestamp(at),
        }),
    })
}

pub(super) fn advance(name: &str, from: u64, lines: u64) -> Command {
    let (offset, size) = (lines * 10, 4_000);
    let progress = RegistrationProgress { lines, offset, size, ..Default::default() };
    Command::Registration(RegistrationCommand::Advance {
        task: id(name),
        from,
        progress: Box::new(progress),
        at: DAY,
    })
}

pub(super) fn stop(name: &str) -> Command {
    Command::Registration(RegistrationCommand::Stop { task: id(name), at: DAY })
}

pub(super) fn end(name: &str, from: u64, status: RegistrationStatus, at: u64) -> Command {
    Command::Registration(RegistrationCommand::End {
        task: id(name),
        from,
        status,
        message: None,
        at: Timestamp(at),
    })
}

pub(super) fn forget(name: &str) -> Command {
    Command::Registration(RegistrationCommand::Forget { task: id(name) })
}

pub(super) fn line(name: &str, line: u64) -> TaskLine {
    TaskLine { task: id(name), line }
}

fn carry_out(number: u8, line: TaskLine) -> Command {
    Command::Provisioning(ProvisioningCommand::Provision(Box::new(Provision {
        check: Check { line: Some(line), ..Check::default() },
        ..provision(number)
    })))
}

#[test]
fn there_is_one_at_a_time() {
    use RegistrationStatus as S;
    let mut registry = after([start("a", 1)]);
    for command in [start("b", 2), forget("a")] {
        assert_eq!(refuse(&mut registry, command), Rejection::RegistrationTaskRuns(id("a")));
    }
    registry.apply(stop("a")).unwrap();
    assert_eq!(registry.registration_task("a").unwrap().status, S::Cancelling);
    assert_eq!(refuse(&mut registry, start("b", 2)), Rejection::RegistrationTaskRuns(id("a")));
    registry.apply(end("a", 0, S::Cancelled, 3)).unwrap();
    let ended = Rejection::RegistrationTaskEnded { task: id("a"), status: "Cancelled".into() };
    for command in [
        stop("a"),
        end("a", 0, S::Failed, 3),
        advance("a", 0, 1),
        start("a", 4),
        carry_out(1, line("a", 1)),
    ] {
        assert_eq!(refuse(&mut registry, command), ended);
    }
    registry.apply(start("b", 2)).unwrap();
    for command in [stop("c"), end("c", 0, S::Failed, 3), forget("c"), carry_out(1, line("c", 1))] {
        let unknown = Rejection::RegistrationTaskNotFound(id("c"));
        assert_eq!(refuse(&mut registry, command), unknown);
    }
    let listed = |status| {
        let page = registry.registration_tasks(status, &Paging::ascending(None, 10));
        page.items.into_iter().map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(None), ["a", "b"]);
    assert_eq!(listed(Some(S::Cancelled)), ["a"]);
    assert_eq!(listed(Some(S::InProgress)), ["b"]);
    assert!(listed(Some(S::Failed)).is_empty());
}

#[test]
fn a_line_makes_one_device_and_only_in_its_window() {
    let mut registry = after([
        register(1, CertificateStatus::Active),
        register(2, CertificateStatus::Active),
        start("a", 1),
        carry_out(1, line("a", 2)),
    ]);
    let again = refuse(&mut registry, carry_out(2, line("a", 2)));
    assert_eq!(again, Rejection::RegistrationLineDone { line: 2, certificate: certificate(1) });
    // What was refused has done nothing, so it may be tried again.
    let unknown = refuse(&mut registry, carry_out(3, line("a", 3)));
    assert_eq!(unknown, Rejection::CertificateNotFound(certificate(3)));
    registry.apply(carry_out(2, line("a", 3))).unwrap();
    let moved = Rejection::RegistrationTaskMoved(id("a"));
    for number in [0, LINES_AT_ONCE + 1, u64::MAX] {
        assert_eq!(refuse(&mut registry, carry_out(2, line("a", number))), moved, "{number}");
    }
    registry.apply(carry_out(2, line("a", LINES_AT_ONCE))).unwrap();
    registry.apply(advance("a", 0, 3)).unwrap();
    assert!(registry.registration_task("a").unwrap().done.is_empty());
    for command in [
        carry_out(2, line("a", 3)),
        advance("a", 0, 2),
        end("a", 0, RegistrationStatus::Completed, 2),
    ] {
        assert_eq!(refuse(&mut registry, command), moved, "a node that fell behind");
    }
    registry.apply(carry_out(2, line("a", LINES_AT_ONCE + 3))).unwrap();
    registry.apply(end("a", 3, RegistrationStatus::Completed, 2)).unwrap();
}

#[test]
fn how_much_is_done_is_said_in_percent() {
    use RegistrationStatus as S;
    for (status, offset, size, expected) in [
        (S::InProgress, 0, 0, 0),
        (S::InProgress, 0, 10, 0),
        (S::InProgress, 999, 1_000, 99),
        (S::Cancelled, 5, 10, 50),
        (S::Failed, u64::MAX, 10, 100),
        (S::Completed, 0, 0, 100),
        (S::InProgress, u64::MAX / 2, u64::MAX, 49),
    ] {
        let registry = after([start("a", 1)]);
        let mut task = registry.registration_task("a").unwrap().clone();
        task.progress = RegistrationProgress { offset, size, ..Default::default() };
        task.status = status;
        assert_eq!(task.percentage(), expected, "{status:?} {offset} of {size}");
    }
}

#[test]
fn a_task_is_forgotten_thirty_days_after_its_end() {
    let month = 30 * DAY.0;
    let mut registry = after([
        start("a", 1),
        end("a", 0, RegistrationStatus::Completed, 10),
        start("b", 2),
        end("b", 0, RegistrationStatus::Failed, 5),
        start("c", 3),
    ]);
    let expired = |registry: &Registry, at| {
        registry.expired_registration_task(Timestamp(at)).map(|task| task.id.to_string())
    };
    for (at, expected) in [(month + 4, None), (month + 5, Some("b")), (u64::MAX, Some("b"))] {
        assert_eq!(expired(&registry, at).as_deref(), expected, "{at}");
    }
    registry.apply(forget("b")).unwrap();
    assert_eq!(expired(&registry, u64::MAX).as_deref(), Some("a"));
    registry.apply(forget("a")).unwrap();
    assert_eq!(expired(&registry, u64::MAX), None, "one that runs is kept");
    assert_eq!(registry.running_registration_task().map(|it| it.id.clone()), Some(id("c")));
}
