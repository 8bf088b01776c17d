//! What a backup holds.

use std::io::Read;
use std::ops::RangeInclusive;

use anyhow::{Context, ensure};
use cluster::{GroupBackup, GroupId, StateMachine};
use serde::{Deserialize, Serialize};

use super::place::{MANIFEST, Place};
use crate::host::Machine;

/// Bytes that a manifest may have: one of 1024 groups takes a tenth.
const MAX_MANIFEST: u64 = 2 << 20;

/// What a backup is of. Written last: what has none is no backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Manifest {
    /// [`Manifest::FORMAT`], or that of another version.
    pub format: u32,
    /// Tells backups apart.
    pub id: String,
    /// The cluster; none of a node that is alone.
    pub cluster: Option<String>,
    /// When it was begun, in RFC 3339.
    pub taken: String,
    /// The version of Skein that took it.
    pub version: String,
    /// Account and region, which ARNs in its policies name.
    pub account: String,
    /// How many groups there are besides `meta`.
    pub shards: u16,
    /// The groups.
    pub groups: Vec<GroupFile>,
}

/// A group of a backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GroupFile {
    /// Its number.
    pub group: u32,
    /// The name of its file.
    pub file: String,
    /// The last entry that is included, and its term.
    pub index: u64,
    /// See `index`.
    pub term: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The sequence that the next entry of its outbox would have.
    pub outbox_end: u64,
}

impl Manifest {
    /// The version of the format that is written here.
    pub const FORMAT: u32 = 2;
    /// The versions that are read. The first had no checksum.
    const READ: RangeInclusive<u32> = 1..=2;

    /// Makes what is at a place a backup.
    pub(super) fn write(&self, place: &dyn Place) -> anyhow::Result<()> {
        let said = self.to_text()?;
        place.complete(&said).with_context(|| format!("cannot write {MANIFEST} to {place}"))
    }

    /// Reads that of a backup.
    pub(super) fn read(place: &dyn Place) -> anyhow::Result<Self> {
        let read = || {
            let mut text = Vec::new();
            place.read(MANIFEST)?.take(MAX_MANIFEST).read_to_end(&mut text).map(|_| text)
        };
        let text =
            read().with_context(|| format!("{place} is no backup: cannot read {MANIFEST}"))?;
        Self::from_text(&text).with_context(|| format!("{place}: {MANIFEST} cannot be used"))
    }

    fn to_text(&self) -> anyhow::Result<Vec<u8>> {
        let mut said = serde_json::to_value(self)?;
        let checksum = checksum(&said)?;
        said[CHECKSUM] = checksum.into();
        Ok(serde_json::to_vec_pretty(&said)?)
    }

    fn from_text(text: &[u8]) -> anyhow::Result<Self> {
        let mut said: serde_json::Value = serde_json::from_slice(text).context("it is damaged")?;
        let format = said["format"].as_u64().and_then(|format| u32::try_from(format).ok());
        let format = format.context("it is damaged: it names no format")?;
        let (from, to) = (Self::READ.start(), Self::READ.end());
        ensure!(
            Self::READ.contains(&format),
            "it has format {format}, this version reads {from} to {to}"
        );
        let written = said.as_object_mut().and_then(|said| said.shift_remove(CHECKSUM));
        ensure!(
            format == 1 || written == Some(checksum(&said)?.into()),
            "it is damaged: its checksum is wrong"
        );
        let manifest: Self = serde_json::from_value(said).context("it is damaged")?;
        let numbers = manifest.groups.iter().map(|group| group.group);
        ensure!(
            numbers.eq(0..=u32::from(manifest.shards)),
            "it is damaged: it does not name each group once"
        );
        Ok(manifest)
    }
}

/// The key of what everything else is checked with.
const CHECKSUM: &str = "crc32c";

/// Of a manifest without its checksum, whatever its layout.
fn checksum(said: &serde_json::Value) -> anyhow::Result<u32> {
    Ok(crc32c::crc32c(&serde_json::to_vec(said)?))
}

impl GroupFile {
    /// Reads the group, and makes sure that it is what a node can take back.
    pub(super) fn read(&self, place: &dyn Place) -> anyhow::Result<GroupBackup> {
        let read = || -> anyhow::Result<GroupBackup> {
            let backup = GroupBackup::read(&mut place.read(&self.file)?)?;
            ensure!(
                (backup.group.0, backup.applied) == (self.group, (self.index, self.term)),
                "it is of another group or another backup"
            );
            let mut machine = Machine::new(GroupId(self.group));
            for (key, value) in backup.pairs()? {
                machine.load(&key, &value)?;
            }
            machine.loaded()?;
            Ok(backup)
        };
        read().with_context(|| format!("{place}: {} cannot be used", self.file))
    }
}

/// Makes sure that a backup could be restored; `said` hears of each group.
pub(super) fn check(
    place: &dyn Place,
    mut said: impl FnMut(&GroupFile),
) -> anyhow::Result<Manifest> {
    let manifest = Manifest::read(place)?;
    for group in &manifest.groups {
        group.read(place)?;
        said(group);
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let group = |group| GroupFile {
            group,
            file: format!("group-{group}.skein"),
            index: 17,
            term: 2,
            bytes: 300,
            outbox_end: 5,
        };
        Manifest {
            format: Manifest::FORMAT,
            id: "1f2e".into(),
            cluster: Some("prod".into()),
            taken: "2026-03-01T04:00:00Z".into(),
            version: "0.1.0".into(),
            account: "account".into(),
            shards: 1,
            groups: vec![group(0), group(1)],
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text = manifest().to_text().unwrap();
        assert_eq!(Manifest::from_text(&text).unwrap(), manifest());
        let first = Manifest { format: 1, ..manifest() };
        let text = serde_json::to_vec(&first).unwrap();
        assert_eq!(Manifest::from_text(&text).unwrap(), first, "without a checksum");
    }

    #[test]
    fn a_manifest_that_was_altered_is_refused() {
        let text = String::from_utf8(manifest().to_text().unwrap()).unwrap();
        for (from, to, why) in [
            ("\"outbox_end\": 5", "\"outbox_end\": 6", "its checksum is wrong"),
            ("1f2e", "1f2f", "its checksum is wrong"),
            ("\"crc32c\"", "\"crc32d\"", "its checksum is wrong"),
            ("\"format\": 2", "\"format\": 3", "it has format 3, this version reads 1 to 2"),
            ("\"format\"", "\"farmot\"", "it names no format"),
            ("{", "", "it is damaged"),
        ] {
            let altered = text.replacen(from, to, 1);
            let error = format!("{:#}", Manifest::from_text(altered.as_bytes()).unwrap_err());
            assert!(error.contains(why), "{altered}: {error}");
        }
        for cut in 0..text.len() {
            assert!(Manifest::from_text(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let once = Manifest { groups: manifest().groups[..1].into(), ..manifest() };
        let error = Manifest::from_text(&once.to_text().unwrap()).unwrap_err();
        assert!(error.to_string().contains("each group once"), "{error}");
    }
}
