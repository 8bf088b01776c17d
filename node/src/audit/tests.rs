use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::follow::{Reader, Wanted};
use super::*;

/// A log in a folder of its own.
fn log(max_bytes: u64, keep: u32) -> (TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let file = Some(folder.path().join("audit.jsonl"));
    (folder, Config { file, max_bytes, keep, ..Config::default() })
}

/// Appends records one after the other.
fn fill(config: &Config, count: usize) -> u64 {
    let (mut journal, cut) = Journal::open(config, Some(7)).unwrap();
    for number in 0..count {
        let entry = of_node("Change", &format!("thing-{number}"), json!({ "number": number }));
        journal.append(&[&entry]).unwrap();
    }
    cut
}

fn path(config: &Config) -> PathBuf {
    config.file.clone().unwrap()
}

/// Where a full file is that begins with this record.
fn numbered(config: &Config, first: u64) -> PathBuf {
    PathBuf::from(format!("{}.{first:020}", path(config).display()))
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn what_was_tampered_with_is_found() {
    type Case = (&'static str, fn(&mut Vec<String>), Result<(u64, u64), &'static str>);
    let cases: [Case; 11] = [
        ("nothing", |_| {}, Ok((1, 5))),
        ("the end is missing", |lines| drop(lines.pop()), Ok((1, 4))),
        ("the beginning is missing", |lines| drop(lines.remove(0)), Ok((2, 5))),
        (
            "a record is missing",
            |lines| drop(lines.remove(2)),
            Err("line 3: record 3 is missing: record 4 follows record 2 in this file"),
        ),
        (
            "records are missing",
            |lines| drop(lines.drain(1..4)),
            Err("line 2: records 2 to 4 are missing: record 5 follows record 1 in this file"),
        ),
        (
            "a record is twice",
            |lines| lines.insert(2, lines[2].clone()),
            Err("line 4: record 3 follows record 3: lines were moved or are there twice"),
        ),
        (
            "two are swapped",
            |lines| lines.swap(1, 2),
            Err("line 2: record 2 is missing: record 3 follows record 1 in this file"),
        ),
        (
            "a word is another one",
            |lines| lines[1] = lines[1].replace("thing-1", "thing-9"),
            Err("line 3: record 3 does not go on from the line before"),
        ),
        (
            "the first one is another one",
            |lines| lines[0] = lines[0].replace("\"previous\":\"00", "\"previous\":\"01"),
            Err("line 1: record 1 does not go on"),
        ),
        ("a line is no record", |lines| lines[3] = "{}".into(), Err("line 4: a line is no record")),
        (
            "a later format",
            |lines| lines[4] = lines[4].replace("\"v\":1", "\"v\":2"),
            Err("line 5: a record has format 2"),
        ),
    ];
    for (case, tamper, expected) in cases {
        let (_folder, config) = log(1 << 20, 0);
        fill(&config, 5);
        let mut lines = lines(&path(&config));
        tamper(&mut lines);
        fs::write(path(&config), lines.join("\n") + "\n").unwrap();
        match (verify(&path(&config)), expected) {
            (Ok(found), Ok(records)) => assert_eq!(found.records, Some(records), "{case}"),
            (Err(found), Err(expected)) => {
                let found = format!("{found:#}");
                assert!(found.contains(expected), "{case}: {found}");
            }
            (found, expected) => panic!("{case}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn files_go_on_from_each_other() {
    let (folder, config) = log(1 << 10, 0);
    fill(&config, 10);
    // After a restart, too.
    fill(&config, 10);
    let full = journal::rotated(&path(&config)).unwrap();
    assert!(full.len() > 3, "{full:?}");
    assert_eq!(full[0].0, 1);
    let verified = verify(&path(&config)).unwrap();
    assert_eq!((verified.records, verified.is_unfinished), (Some((1, 20)), false));
    let text = verified.to_string();
    assert!(text.starts_with("records 1 to 20 are whole\nSHA-256 of record 20: "), "{text}");
    // A full file alone.
    assert!(verify(&full[1].1).unwrap().records.unwrap().0 > 1);
    fs::remove_file(&full[2].1).unwrap();
    let error = format!("{:#}", verify(&path(&config)).unwrap_err());
    let (first, after) = (full[2].0, full[3].0);
    let what = match after - first {
        1 => format!("record {first} is missing"),
        _ => format!("records {first} to {} are missing", after - 1),
    };
    let (before, file) = (full[1].1.display(), full[2].1.display());
    let last = first - 1;
    let expected = format!(
        "{}, line 1: {what}: record {after} follows record {last}, the last one in {before}; that \
         file was shortened, or {file} is not there",
        full[3].1.display()
    );
    assert_eq!(error, expected);
    drop(folder);
}

#[test]
fn what_is_asked_of_a_stream_is_read() {
    for (query, expected) in [
        (&[][..], Ok((0, false))),
        (&[("after", "7"), ("follow", "true")], Ok((7, true))),
        (&[("follow", "false")], Ok((0, false))),
        (&[("after", "-1")], Err("the parameter after must be the number of a record, not \"-1\"")),
        (&[("after", "")], Err("the parameter after must be the number of a record, not \"\"")),
        (&[("follow", "yes")], Err("the parameter follow must be true or false, not \"yes\"")),
        (&[("after", "1"), ("after", "2")], Err("the parameter \"after\" is there twice")),
        (
            &[("since", "1")],
            Err("there is no parameter \"since\": there are after, the number of a record, and \
                 follow, true or false"),
        ),
    ] {
        let owned: Vec<_> =
            query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let expected = expected.map(|(after, follow)| Wanted { after, follow });
        assert_eq!(Wanted::read(&owned), expected.map_err(ToOwned::to_owned), "{query:?}");
    }
}

#[test]
fn so_many_full_files_are_kept() {
    let (_folder, config) = log(1 << 10, 2);
    fill(&config, 20);
    let full = journal::rotated(&path(&config)).unwrap();
    assert_eq!(full.len(), 2);
    let verified = verify(&path(&config)).unwrap();
    assert_eq!(verified.records, Some((full[0].0, 20)));
    assert!(verified.to_string().contains("older files were deleted"));
}

#[test]
fn an_unfinished_record_is_cut_off() {
    for (end, cut) in [("{\"v\":1,\"seq\":4", 14), ("", 0)] {
        let (_folder, config) = log(1 << 20, 0);
        fill(&config, 3);
        let whole = fs::read_to_string(path(&config)).unwrap();
        fs::write(path(&config), whole + end).unwrap();
        assert_eq!(verify(&path(&config)).unwrap().is_unfinished, cut > 0);
        assert_eq!(fill(&config, 1), cut);
        let verified = verify(&path(&config)).unwrap();
        assert_eq!((verified.records, verified.is_unfinished), (Some((1, 4)), false));
    }
}

#[test]
fn what_has_changed_is_left_out_of_a_record_that_is_too_long() {
    for (bytes, is_left_out) in
        [(journal::LONGEST_LINE - 1000, false), (journal::LONGEST_LINE, true)]
    {
        let (_folder, config) = log(1 << 30, 0);
        let (mut journal, _) = Journal::open(&config, None).unwrap();
        let long = of_node("Change", "thing", "x".repeat(bytes).into());
        journal.append(&[&of_node("Change", "thing", Value::Null), &long]).unwrap();
        drop(journal);
        let lines = lines(&path(&config));
        assert!(lines.iter().all(|line| line.len() < journal::LONGEST_LINE));
        let record: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(record.get("changes").is_none(), is_left_out, "{bytes}");
        assert_eq!(record.get("changes_left_out"), is_left_out.then(|| json!(1)).as_ref());
        // It is found behind whatever was begun after it.
        let begun = "y".repeat(journal::LONGEST_LINE - 1);
        fs::write(path(&config), lines.join("\n") + "\n" + &begun).unwrap();
        assert_eq!(fill(&config, 1), begun.len() as u64);
        assert_eq!(verify(&path(&config)).unwrap().records, Some((1, 3)));
    }
}

#[test]
fn a_file_that_is_something_else_is_not_written() {
    for content in ["hello\n", "{\"v\":2,\"seq\":1,\"previous\":\"\"}\n", "{\"v\":1}\n"] {
        let (_folder, config) = log(1 << 20, 0);
        fs::write(path(&config), content).unwrap();
        assert!(Journal::open(&config, None).is_err(), "{content}");
        assert_eq!(fs::read_to_string(path(&config)).unwrap(), content);
    }
}

#[test]
fn a_log_that_was_moved_away_goes_on_in_another_file() {
    let (folder, config) = log(1 << 20, 0);
    let (mut journal, _) = Journal::open(&config, None).unwrap();
    let mut append = || journal.append(&[&of_node("Change", "thing", Value::Null)]);
    append().unwrap();
    let moved = folder.path().join("moved");
    fs::rename(path(&config), &moved).unwrap();
    append().unwrap();
    assert_eq!(verify(&moved).unwrap().records, Some((1, 1)));
    assert_eq!(verify(&path(&config)).unwrap().records, Some((2, 2)));
    // They go on from each other.
    fs::write(&moved, lines(&moved).join("\n") + "\n" + &lines(&path(&config)).join("\n") + "\n")
        .unwrap();
    assert_eq!(verify(&moved).unwrap().records, Some((1, 2)));
    fs::remove_file(path(&config)).unwrap();
    fs::write(path(&config), "something else\n").unwrap();
    assert!(append().unwrap_err().to_string().contains("another file was put into its place"));
    fs::remove_file(path(&config)).unwrap();
    append().unwrap();
    assert_eq!(verify(&path(&config)).unwrap().records, Some((3, 3)));
}

#[test]
fn what_somebody_has_spoilt_is_left_and_not_written_to() {
    for spoil in [|file: &fs::File| file.set_len(0), |file: &fs::File| file.set_len(300)] {
        let (_folder, config) = log(1 << 20, 0);
        let (mut journal, _) = Journal::open(&config, None).unwrap();
        let mut append = || journal.append(&[&of_node("Change", "thing", Value::Null)]);
        (0..3).for_each(|_| append().unwrap());
        spoil(&fs::OpenOptions::new().write(true).open(path(&config)).unwrap()).unwrap();
        append().unwrap();
        append().unwrap();
        let said = lines(&path(&config));
        assert_eq!(said.len(), 2, "the records after it are whole");
        assert!(said[0].contains("\"seq\":4"), "{}", said[0]);
        // Nothing is left of the first three, or a piece that is no record.
        assert!(verify(&path(&config)).map_or(true, |it| it.records == Some((4, 5))));
    }
}

#[test]
fn a_log_that_was_emptied_while_it_failed_goes_on_in_another_file() {
    let (_folder, config) = log(1 << 20, 0);
    let (mut journal, _) = Journal::open(&config, None).unwrap();
    let entry = of_node("Change", "thing", Value::Null);
    (0..3).for_each(|_| journal.append(&[&entry]).unwrap());
    let file = fs::OpenOptions::new().write(true).open(path(&config)).unwrap();
    for length in [None, Some(0)] {
        journal.fail();
        let length = length.unwrap_or(file.metadata().unwrap().len() + 7);
        file.set_len(length).unwrap();
        journal.append(&[&entry]).unwrap();
    }
    drop(journal);
    assert_eq!(fs::read(numbered(&config, 1)).unwrap(), b"");
    assert_eq!(verify(&path(&config)).unwrap().records, Some((5, 5)));
    fill(&config, 1);
    assert_eq!(verify(&path(&config)).unwrap().records, Some((5, 6)));
}

#[test]
fn full_files_without_records_do_not_stop_a_start() {
    // Full files by the numbers of their first records, with their numbers of records.
    for (full, first, verified) in [
        (&[(1, 2), (3, 0)][..], 4, Err("line 1: record 3 is missing: record 4 follows record 2")),
        (&[(1, 0), (2, 2)], 4, Ok((2, 4))),
        (&[(1, 0)], 2, Ok((2, 2))),
        (&[(1, 0), (5, 0)], 6, Ok((6, 6))),
    ] {
        let (_folder, config) = log(1 << 20, 0);
        for &(first, count) in full {
            fill(&config, count);
            fs::rename(path(&config), numbered(&config, first)).unwrap();
        }
        fill(&config, 1);
        assert!(lines(&path(&config))[0].contains(&format!("\"seq\":{first},")), "{full:?}");
        let found = verify(&path(&config));
        match (found, verified) {
            (Ok(found), Ok(records)) => assert_eq!(found.records, Some(records), "{full:?}"),
            (Err(found), Err(expected)) => assert!(found.to_string().contains(expected), "{found}"),
            (found, _) => panic!("{full:?}: {found:?}"),
        }
    }
}

#[test]
fn one_process_writes_a_log() {
    let (_folder, config) = log(1 << 20, 0);
    let _open = Journal::open(&config, None).unwrap();
    let error = Journal::open(&config, None).unwrap_err();
    assert_eq!(error.to_string(), "another process writes it");
}

#[test]
fn what_cannot_be_written_is_found_before() {
    let (folder, config) = log(1 << 20, 0);
    let problem = |file: PathBuf| {
        let mut found = crate::config::Findings::default();
        check(&Config { file: Some(file), ..config.clone() }, &mut found);
        found.problems.first().map(|it| it.text.clone()).unwrap_or_default()
    };
    assert_eq!(problem(path(&config)), "");
    fill(&config, 1);
    assert_eq!(problem(path(&config)), "");
    assert!(problem(folder.path().join("no/audit.jsonl")).contains("is not there"));
    assert!(problem(folder.path().to_owned()).contains("is a folder"));
}

/// The numbers of the records that a reader is given.
fn read_all(config: &Config, after: u64, stored: u64) -> Vec<u64> {
    let mut reader = Reader::new(path(config), after);
    let mut text = String::new();
    loop {
        let more = reader.next(stored).unwrap();
        if more.is_empty() {
            break;
        }
        text += std::str::from_utf8(&more).unwrap();
    }
    text.lines().map(|line| journal::read(line.as_bytes()).unwrap().seq).collect()
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let (_folder, config) = log(1 << 10, 0);
    fill(&config, 12);
    for after in [0, 1, 7, 11, 12, 99] {
        let numbers = read_all(&config, after, 12);
        assert_eq!(numbers, (after + 1..=12).collect::<Vec<_>>(), "{after}");
    }
    // What is not stored yet is not told.
    let mut reader = Reader::new(path(&config), 9);
    let told = String::from_utf8(reader.next(10).unwrap()).unwrap();
    assert_eq!(told.lines().count(), 1);
    assert_eq!(reader.next(10).unwrap(), b"");
    assert_eq!(String::from_utf8(reader.next(12).unwrap()).unwrap().lines().count(), 2);
}

#[test]
fn a_reader_goes_on_behind_records_that_are_missing() {
    type Case = (&'static str, fn(&Path, &Path), &'static [u64]);
    let cases: [Case; 5] = [
        ("the middle was moved away", |full, _| fs::remove_file(full).unwrap(), &[1, 2, 5, 6]),
        ("the middle was emptied", |full, _| fs::write(full, "").unwrap(), &[1, 2, 5, 6]),
        (
            "the middle ends within a record",
            |full, _| {
                let text = fs::read_to_string(full).unwrap();
                fs::write(full, &text[..text.len() - 3]).unwrap();
            },
            &[1, 2, 3, 5, 6],
        ),
        (
            "somebody has written into the middle",
            |full, _| {
                let text = fs::read_to_string(full).unwrap();
                let (first, second) = text.split_once('\n').unwrap();
                fs::write(full, format!("{first}\nno record\n{second}")).unwrap();
            },
            &[1, 2, 3, 4, 5, 6],
        ),
        ("the end was moved away", |_, present| fs::remove_file(present).unwrap(), &[1, 2, 3, 4]),
    ];
    for (case, take, expected) in cases {
        let (_folder, config) = log(1 << 20, 0);
        // Three files of two records.
        for first in [1, 3, 5] {
            fill(&config, 2);
            if first < 5 {
                fs::rename(path(&config), numbered(&config, first)).unwrap();
            }
        }
        take(&numbered(&config, 3), &path(&config));
        for after in 0..=6 {
            let expected: Vec<u64> = expected.iter().copied().filter(|it| *it > after).collect();
            assert_eq!(read_all(&config, after, 6), expected, "{case}, after {after}");
        }
        // A record behind the gap that is not stored yet.
        let stored: Vec<u64> = expected.iter().copied().filter(|it| *it <= 4).collect();
        assert_eq!(read_all(&config, 0, 4), stored, "{case}");
    }
}
