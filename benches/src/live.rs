//! What a run does, on a terminal, while it does it.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::report::number;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(250);

/// One line on standard error that is written over and over; none where that is no terminal.
#[derive(Debug)]
pub struct Live {
    what: &'static str,
    start: Instant,
    /// When the line was written, and what had been counted by then.
    shown: (Instant, u64),
    is_terminal: bool,
}

impl Live {
    /// Begins to count.
    pub fn new(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, start: now, shown: (now, 0), is_terminal: stderr().is_terminal() }
    }

    /// So many there are by now; costs next to nothing when it is too early for a new line.
    pub fn show(&mut self, now: Instant, count: u64) {
        if self.is_terminal && now - self.shown.0 >= EVERY {
            let line = self.line(now, count);
            // A terminal that is gone is no reason to end.
            let _ = write!(stderr(), "\r\x1b[K{line}");
            self.shown = (now, count);
        }
    }

    fn line(&self, now: Instant, count: u64) -> String {
        let (at, before) = self.shown;
        let rate = count.saturating_sub(before) as f64 / (now - at).as_secs_f64();
        let passed = (now - self.start).as_secs_f64();
        format!("{passed:>7.1} s  {:>12} {}/s", number(rate.round()), self.what)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.is_terminal && self.shown.0 > self.start {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_many_there_were_since_the_last() {
        let mut live = Live::new("messages");
        let start = live.start;
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(live.line(at(500), 600_000), "    0.5 s     1,200,000 messages/s");
        live.shown = (at(500), 600_000);
        assert_eq!(live.line(at(1_000), 600_050), "    1.0 s           100 messages/s");
    }
}
