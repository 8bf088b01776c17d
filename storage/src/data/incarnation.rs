//! The lives of a node on a data directory, which tell the directory from copies of it.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{DataDir, DataError, failed};
use crate::disk::is_full;

/// A data directory remembers so many of the lives that were begun on it.
pub const LIVES_KEPT: usize = 64;

/// Follows the number of a life in which another node was linked.
const LINKED: &str = "linked";

/// A life of a node on a data directory: from one start to the next.
#[derive(Debug)]
pub struct Incarnation {
    begun: Vec<Begun>,
    /// Whether a version that kept the last number only has begun the one before.
    is_upgraded: bool,
    /// The file that remembers.
    file: PathBuf,
}

/// A life, as the directory remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    number: u64,
    /// Whether another node has let it in.
    linked: bool,
}

impl Incarnation {
    /// Its own number.
    pub fn number(&self) -> u64 {
        self.begun.last().expect("it is one of them").number
    }

    /// It and those before it, by their numbers, each greater than those before: at most
    /// [`LIVES_KEPT`]. None where it is not known which there were before.
    pub fn lives(&self) -> Vec<u64> {
        match self.is_upgraded {
            true => Vec::new(),
            false => self.begun.iter().map(|life| life.number).collect(),
        }
    }

    /// Notes that another node has let this life in: those that nobody knows are forgotten first.
    pub fn note_linked(&mut self) -> Result<(), DataError> {
        self.begun.last_mut().expect("it is one of them").linked = true;
        write(&self.begun, &self.file).map_err(failed("write", &self.file))
    }
}

impl DataDir {
    /// Begins another life of a node on this directory. Its number is about the time in milliseconds, so
    /// that it grows also where an older directory was brought back. Needs no room on the disk but at the
    /// first start.
    pub fn next_incarnation(&self) -> Result<Incarnation, DataError> {
        let file = self.path.join("incarnation");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed("read", &file)(error)),
        };
        // That version ended no line.
        let is_upgraded = !text.is_empty() && !text.contains('\n');
        let whole =
            if is_upgraded { &*text } else { &text[..text.rfind('\n').map_or(0, |at| at + 1)] };
        let lives = whole.lines().map(parse).collect::<Option<Vec<_>>>();
        let mut begun = lives.ok_or_else(|| {
            failed("read", &file)(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
        })?;
        let last = begun.last().map(|life| life.number);
        let number = next_after(last.unwrap_or_default());
        while begun.len() >= LIVES_KEPT {
            let unknown = begun.iter().position(|life| !life.linked);
            begun.remove(unknown.unwrap_or_default());
        }
        begun.push(Begun { number, linked: false });
        let written = write(&begun, &file).or_else(|error| match is_full(&error) {
            true if last.is_some() => append(&file, whole, number),
            _ => Err(error),
        });
        written.map_err(failed("write", &file))?;
        Ok(Incarnation { begun, is_upgraded, file })
    }
}

fn parse(line: &str) -> Option<Begun> {
    let (number, linked) = match line.split_once(' ') {
        Some((number, LINKED)) => (number, true),
        Some(_) => return None,
        None => (line, false),
    };
    Some(Begun { number: number.parse().ok()?, linked })
}

fn write(begun: &[Begun], file: &Path) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    for Begun { number, linked } in begun {
        let mark = if *linked { format!(" {LINKED}") } else { String::new() };
        writeln!(written, "{number}{mark}")?;
    }
    written.sync_all()?;
    fs::rename(&new, file)?;
    File::open(file.parent().expect("it is in a directory"))?.sync_all()
}

/// There is room behind the end of a short file. What was not finished there goes.
fn append(file: &Path, whole: &str, number: u64) -> io::Result<()> {
    let mut old = File::options().append(true).open(file)?;
    old.set_len(whole.len() as u64)?;
    let begin = if whole.ends_with('\n') { "" } else { "\n" };
    old.write_all(format!("{begin}{number}\n").as_bytes())?;
    old.sync_all()
}

/// Copies of one directory must not begin lives of the same number where the clock is behind.
fn next_after(last: u64) -> u64 {
    const SPREAD: u64 = 1 << 20;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = now.as_millis() as u64;
    let chance = || RandomState::new().hash_one(last) % SPREAD;
    if now > last { now } else { last.saturating_add(1 + chance()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_is_greater_and_knows_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let next = || data.next_incarnation().unwrap();
        let mut told: Vec<_> = (0..LIVES_KEPT + 2).map(|_| next().number()).collect();
        assert!(told.is_sorted_by(|one, next| one < next));
        let life = next();
        told.push(life.number());
        assert_eq!(life.lives(), told[3..]);
    }

    #[test]
    fn lives_that_others_know_are_remembered_longer() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut linked = Vec::new();
        for number in 0..3 * LIVES_KEPT {
            let mut life = data.next_incarnation().unwrap();
            if number < 3 {
                life.note_linked().unwrap();
                linked.push(life.number());
            }
        }
        let life = data.next_incarnation().unwrap();
        assert_eq!(life.lives().len(), LIVES_KEPT);
        assert_eq!(life.lives()[..3], linked);
    }

    #[test]
    fn lives_go_on_from_what_the_file_says() {
        const AHEAD: u64 = 1 << 60;
        let ahead = AHEAD.to_string();
        for (text, before) in [
            (format!("5 linked\n{ahead}\n"), Some(vec![5, AHEAD])),
            // A write was cut short by a full disk.
            (format!("{ahead}\n12"), Some(vec![AHEAD])),
            (String::new(), Some(vec![])),
            ("five\n".into(), None),
            ("5 linke\n".into(), None),
            (format!("{ahead}\n\0\0\0\n"), None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let [one, other] = [(); 2].map(|()| {
                fs::write(dir.path().join("incarnation"), &text).unwrap();
                data.next_incarnation()
            });
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
        let first = data.next_incarnation().unwrap();
        assert!(first.number() > AHEAD);
        assert!(first.lives().is_empty(), "others judge it by its number");
        let second = data.next_incarnation().unwrap();
        assert_eq!(second.lives(), [AHEAD, first.number(), second.number()]);
    }

    #[test]
    fn a_number_is_put_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("incarnation");
        for (text, whole, expected) in
            [("5\n6\n", "5\n6\n", "5\n6\n7\n"), ("5\n6", "5\n", "5\n7\n"), ("5", "5", "5\n7\n")]
        {
            fs::write(&file, text).unwrap();
            append(&file, whole, 7).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        }
    }
}
