//! The lives of a node on a data directory, which tell the directory from copies of it.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{DataDir, DataError, failed};
use crate::disk::is_full;

/// A data directory remembers so many of the lives that were begun on it, and the one that each other node
/// has let in last.
pub const LIVES_KEPT: usize = 64;

/// The file that names the latest life of this node on another directory.
const OUTLIVED: &str = "outlived";

/// A life of a node on a data directory: from one start to the next.
#[derive(Debug)]
pub struct Incarnation {
    begun: Vec<Begun>,
    /// Whether a version that kept the last number only has begun the one before.
    is_upgraded: bool,
    /// The file that remembers.
    file: PathBuf,
    /// Whether the file has yet to be told who has let this life in.
    is_news: bool,
    /// What it says of earlier ones: whole lines.
    before: String,
}

/// A life, as the directory remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begun {
    number: u64,
    /// The nodes that have let it in, and none since. They may ask for it, however long ago that was.
    let_in_by: Vec<u64>,
}

impl Incarnation {
    /// Its own number.
    pub fn number(&self) -> u64 {
        self.begun.last().expect("it is one of them").number
    }

    /// It and those before it, by their numbers, each greater than those before. None where it is not
    /// known which there were.
    pub fn lives(&self) -> Vec<u64> {
        match self.is_upgraded {
            true => Vec::new(),
            false => self.begun.iter().map(|life| life.number).collect(),
        }
    }

    /// Has the directory remember it. Before that it may do nothing that is remembered elsewhere. Needs
    /// room on the disk at the first start alone, or after some hundred starts without any.
    pub fn begin(&self) -> Result<(), DataError> {
        let written = write(&self.begun, &self.file).or_else(|error| match is_full(&error) {
            true if !self.before.is_empty() => append(&self.file, &self.before, self.number()),
            _ => Err(error),
        });
        written.map_err(failed("write", &self.file))
    }

    /// Notes that another node has let it in. What cannot be written is written with the next.
    pub fn note_let_in(&mut self, node: u64) -> Result<(), DataError> {
        let (last, before) = self.begun.split_last_mut().expect("it is one of them");
        if !last.let_in_by.contains(&node) {
            last.let_in_by.push(node);
            before.iter_mut().for_each(|life| life.let_in_by.retain(|it| *it != node));
            self.is_news = true;
        }
        if self.is_news {
            write(&self.begun, &self.file).map_err(failed("write", &self.file))?;
            self.is_news = false;
        }
        Ok(())
    }
}

impl DataDir {
    /// The next life of a node on this directory, which is yet to [begin](Incarnation::begin). Its number
    /// is about the time in milliseconds, so that it grows also where an older directory was brought back.
    pub fn next_incarnation(&self) -> Result<Incarnation, DataError> {
        let file = self.path.join("incarnation");
        let text = read(&file)?;
        // That version ended no line. Behind the last line of this one is what a full disk cut short.
        let is_upgraded = !text.is_empty() && !text.contains('\n');
        let whole = if is_upgraded { text.len() } else { text.rfind('\n').map_or(0, |at| at + 1) };
        let before = text[..whole].to_owned();
        let begun = before.lines().map(parse).collect::<Option<Vec<_>>>();
        let mut begun = begun.ok_or_else(|| damaged(&file))?;
        let last = begun.last().map_or(0, |life| life.number);
        let number = next_after(last.max(self.outlived()?));
        while begun.len() >= LIVES_KEPT
            && let Some(oldest) = begun.iter().position(|life| life.let_in_by.is_empty())
        {
            begun.remove(oldest);
        }
        begun.push(Begun { number, let_in_by: Vec::new() });
        Ok(Incarnation { begun, is_upgraded, file, is_news: false, before })
    }

    /// Has the next life be later than one of this node on another directory, whose place this one takes:
    /// a clock that was ahead is all that it takes to have begun that.
    pub fn begin_after(&self, life: u64) -> Result<(), DataError> {
        let file = self.path.join(OUTLIVED);
        replace(&file, &format!("{life}\n")).map_err(failed("write", &file))
    }

    /// The latest life of this node on another directory, as far as it is known; or else 0.
    fn outlived(&self) -> Result<u64, DataError> {
        let file = self.path.join(OUTLIVED);
        match read(&file)?.as_str() {
            "" => Ok(0),
            text => text.trim_end().parse().map_err(|_| damaged(&file)),
        }
    }
}

/// What a file says; nothing if there is none.
fn read(file: &Path) -> Result<String, DataError> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(failed("read", file)),
    }
}

fn damaged(file: &Path) -> DataError {
    failed("read", file)(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
}

/// A line: the number of a life, and those of the nodes that have let it in last.
fn parse(line: &str) -> Option<Begun> {
    let numbers = line.split(' ').map(|number| number.parse().ok());
    let mut numbers = numbers.collect::<Option<Vec<u64>>>()?.into_iter();
    Some(Begun { number: numbers.next()?, let_in_by: numbers.collect() })
}

fn write(begun: &[Begun], file: &Path) -> io::Result<()> {
    let line = |Begun { number, let_in_by }: &Begun| {
        let nodes = let_in_by.iter().map(|node| format!(" {node}")).collect::<String>();
        format!("{number}{nodes}\n")
    };
    replace(file, &begun.iter().map(line).collect::<String>())
}

/// All of the new text or all of the old one is there, whenever the power fails.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    File::open(file.parent().expect("it is in a directory"))?.sync_all()
}

/// There is room behind the end of a short file. What was not finished there goes.
fn append(file: &Path, before: &str, number: u64) -> io::Result<()> {
    let mut old = File::options().append(true).open(file)?;
    old.set_len(before.len() as u64)?;
    let begin = if before.ends_with('\n') { "" } else { "\n" };
    old.write_all(format!("{begin}{number}\n").as_bytes())?;
    old.sync_all()
}

/// Copies of one directory must not begin lives of the same number: at the same moment, or where the clock
/// is behind.
fn next_after(last: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    number_after(last, now.as_millis() as u64, RandomState::new().hash_one(last))
}

/// Not far ahead of the clock, whatever it was before: a directory that takes this one's place knows nothing
/// of its lives, and must begin a later one, at once if it can.
fn number_after(last: u64, now: u64, chance: u64) -> u64 {
    if now > last { now + chance % (1 << 10) } else { last.saturating_add(1 + chance % (1 << 12)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next life of a directory, begun.
    fn begin(data: &DataDir) -> Incarnation {
        let life = data.next_incarnation().unwrap();
        life.begin().unwrap();
        life
    }

    #[test]
    fn every_life_is_greater_and_knows_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut told: Vec<_> = (0..LIVES_KEPT + 2).map(|_| begin(&data).number()).collect();
        assert!(told.is_sorted_by(|one, next| one < next));
        let life = begin(&data);
        told.push(life.number());
        assert_eq!(life.lives(), told[3..]);
        assert_ne!(data.next_incarnation().unwrap().number(), life.number());
        assert_eq!(begin(&data).lives()[..LIVES_KEPT - 1], told[4..], "it was never begun");
    }

    #[test]
    fn a_clock_that_was_behind_puts_numbers_seconds_ahead_at_most() {
        let (now, chance) = (1_000_000, u64::MAX);
        let behind = number_after(now, now - 30_000, chance);
        assert!(behind > now && behind < now + 5_000);
        assert!(number_after(behind, now + 10_000, chance) < now + 15_000, "it is caught up with");
    }

    #[test]
    fn a_life_is_later_than_those_on_another_directory() {
        const AHEAD: u64 = 1 << 60;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.begin_after(AHEAD).unwrap();
        let life = begin(&data);
        assert!(life.number() > AHEAD);
        assert_eq!(life.lives(), [life.number()], "that one was not begun here");
        fs::write(dir.path().join("outlived"), "soon\n").unwrap();
        let error = data.next_incarnation().unwrap_err().to_string();
        assert!(error.contains("outlived") && error.contains("damaged"), "{error}");
    }

    #[test]
    fn the_life_that_a_node_has_let_in_last_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut let_in = Vec::new();
        for number in 0..3 * LIVES_KEPT {
            let mut life = begin(&data);
            // Node 2 ends after the first, node 3 goes on.
            let nodes: &[u64] = if number == 0 { &[2, 3] } else { &[3] };
            for node in nodes {
                life.note_let_in(*node).unwrap();
            }
            let_in.push(life.number());
        }
        let lives = begin(&data).lives();
        assert_eq!(lives.len(), LIVES_KEPT);
        assert_eq!(lives[0], let_in[0]);
        assert_eq!(lives[1..LIVES_KEPT - 1], let_in[2 * LIVES_KEPT + 2..]);
    }

    #[test]
    fn lives_go_on_from_what_the_file_says() {
        const AHEAD: u64 = 1 << 60;
        let ahead = AHEAD.to_string();
        for (text, before) in [
            (format!("5 2 3\n{ahead}\n"), Some(vec![5, AHEAD])),
            // A write was cut short by a full disk.
            (format!("{ahead}\n12"), Some(vec![AHEAD])),
            (String::new(), Some(vec![])),
            ("five\n".into(), None),
            ("5 two\n".into(), None),
            (format!("{ahead}\n\0\0\0\n"), None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            fs::write(dir.path().join("incarnation"), &text).unwrap();
            let [one, other] = [(); 2].map(|()| data.next_incarnation());
            let Some(before) = before else {
                let error = one.unwrap_err().to_string();
                assert!(error.contains("incarnation") && error.contains("damaged"), "{error}");
                continue;
            };
            let (one, other) = (one.unwrap(), other.unwrap());
            let lives = one.lives();
            assert_eq!(lives[..lives.len() - 1], before, "{text:?}");
            assert!(lives.is_sorted());
            if before.last() == Some(&AHEAD) {
                assert_ne!(one.number(), other.number(), "two copies begin another life each");
            }
        }
    }

    #[test]
    fn a_life_after_those_of_a_version_that_kept_one_knows_of_none() {
        const AHEAD: u64 = 1 << 60;
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("incarnation"), AHEAD.to_string()).unwrap();
        let first = begin(&data);
        assert!(first.number() > AHEAD);
        assert!(first.lives().is_empty(), "others judge it by its number");
        let second = begin(&data);
        assert_eq!(second.lives(), [AHEAD, first.number(), second.number()]);
    }

    #[test]
    fn a_number_is_put_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("incarnation");
        for (text, before, expected) in
            [("5\n6\n", "5\n6\n", "5\n6\n7\n"), ("5\n6", "5\n", "5\n7\n"), ("5", "5", "5\n7\n")]
        {
            fs::write(&file, text).unwrap();
            append(&file, before, 7).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        }
    }
}
