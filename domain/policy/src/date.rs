//! Dates in conditions: W3C's profile of ISO 8601, or Unix seconds.

/// Unix seconds of `2026-04-01`, `2026-04-01T14:20Z`, `2026-04-01T14:20:30.5+02:00` or `1775053230`.
pub(crate) fn parse(text: &str) -> Option<f64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > 4 {
        return text.parse().ok();
    }
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let midnight = days(date)? as f64 * 86_400.0;
    Some(midnight + time.map_or(Some(0.0), seconds)?)
}

/// Days since 1970 of `2026`, `2026-04` or `2026-04-01`.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |month| number(month, 2))?;
    let day = parts.next().map_or(Some(1), |day| number(day, 2))?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Counted from March, a leap day is the last day of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// Seconds into the day, in UTC, of `14:20Z`, `14:20:30.5+02:00`.
fn seconds(time: &str) -> Option<f64> {
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let mut parts = clock.splitn(3, ':');
    let hours = bounded(parts.next()?, 24)?;
    let minutes = bounded(parts.next()?, 60)?;
    let seconds = match parts.next() {
        None => 0.0,
        Some(seconds) => {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
            let is_digits = !fraction.is_empty() && fraction.bytes().all(|it| it.is_ascii_digit());
            let fraction: f64 = is_digits.then(|| format!("0.{fraction}").parse().ok())??;
            bounded(whole, 61)? as f64 + fraction
        }
    };
    Some((hours * 3600 + minutes * 60 - offset(zone)?) as f64 + seconds)
}

/// Seconds by which a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = bounded(hours, 24)? * 3600 + bounded(minutes, 60)? * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

fn bounded(digits: &str, end: i64) -> Option<i64> {
    number(digits, 2).filter(|number| *number < end)
}

fn number(digits: &str, length: usize) -> Option<i64> {
    let fits = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_unix_seconds() {
        for (text, expected) in [
            ("1970-01-01", Some(0.0)),
            ("1969-12-31T23:59:59Z", Some(-1.0)),
            ("2026-04-01T14:20:30Z", Some(1_775_053_230.0)),
            ("2026-04-01T14:20:30.5Z", Some(1_775_053_230.5)),
            ("2026-04-01T16:20:30+02:00", Some(1_775_053_230.0)),
            ("2026-04-01T07:50:30-06:30", Some(1_775_053_230.0)),
            ("2026-04-01T14:20Z", Some(1_775_053_200.0)),
            ("2000-02-29", Some(951_782_400.0)),
            ("2024", Some(1_704_067_200.0)),
            ("2024-02", Some(1_706_745_600.0)),
            ("1775053230", Some(1_775_053_230.0)),
            ("1900-02-29", None),
            ("2026-13-01", None),
            ("2026-04-31", None),
            ("2026-04-01T24:00Z", None),
            ("2026-04-01T14:20:30", None),
            ("2026-04-01T14:20:30.Z", None),
            ("2026-4-1", None),
            ("yesterday", None),
            ("", None),
            ("2026-04-01T", None),
            ("2026-04-01TZ", None),
            ("2026-04-01T14:20+é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
