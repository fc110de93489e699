//! What lies where in a bundle, and what is wrong with the container.
//!
//! Nothing is taken from the file as true: every length is compared with what is there before anything is read, and
//! nothing is allocated by a number that the file states. A fault never hides what can still be read.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use toka_kernel::entry::Head;
use toka_kernel::hash::{Context, hasher};
use toka_kernel::ids::{Commitment, SessionId};
use toka_kernel::limits::BLOB_BYTES_MAX;

use super::frames::Walk;
use super::manifest::{Manifest, ManifestSession, Omitted};
use super::read::{EntriesSection, Section};
use super::{
    BLOB_HEADER_BYTES, BUNDLE_SESSIONS_MAX, ContainerCode, ContainerFault, ENTRIES_HEADER_BYTES, MAGIC,
    MANIFEST_BYTES_MAX, SECTION_HEADER_BYTES, TRAILER_BYTES, kind,
};

/// Two sections for each session, and one of each other type.
const SECTIONS_MAX: usize = 2 * BUNDLE_SESSIONS_MAX + 8;

/// What lies where.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) sections: Vec<Section>,
    pub(super) manifest: Option<Manifest>,
    /// In the order of the file.
    pub(super) entries: Vec<EntriesSection>,
    pub(super) heads: BTreeMap<SessionId, Head>,
    pub(super) blobs: BTreeMap<SessionId, Blobs>,
    pub(super) faults: Vec<ContainerFault>,
}

/// The blobs of a session: where the record of each begins.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    /// Sorted.
    pub(super) by_commitment: Vec<(Commitment, u64)>,
}

impl Blobs {
    pub(super) fn find(&self, commitment: Commitment) -> Option<u64> {
        let at = self.by_commitment.partition_point(|(known, _)| *known < commitment);
        self.by_commitment.get(at).filter(|(known, _)| *known == commitment).map(|(_, offset)| *offset)
    }
}

impl Index {
    /// Goes through the whole input, whose magic bytes are right and whose length is `len`.
    pub(super) fn of<R: Read + Seek>(input: R, len: u64) -> io::Result<Index> {
        let mut indexer = Indexer {
            input: BufReader::with_capacity(1 << 16, input),
            len,
            cut: false,
            index: Index::default(),
            walks: Vec::new(),
        };
        indexer.find_sections()?;
        for section in indexer.index.sections.clone() {
            match section.kind {
                kind::MANIFEST => indexer.read_manifest(section)?,
                kind::ENTRIES => indexer.read_entries(section)?,
                kind::BLOBS => indexer.read_blobs(section)?,
                _ => {}
            }
        }
        indexer.compare_manifest();
        indexer.check_trailer()?;
        Ok(indexer.index)
    }
}

struct Indexer<R> {
    input: BufReader<R>,
    len: u64,
    /// The last section says that it is longer than the file.
    cut: bool,
    index: Index,
    walks: Vec<Walk>,
}

impl<R: Read + Seek> Indexer<R> {
    fn fault(&mut self, code: ContainerCode, offset: u64, detail: String) {
        self.index.faults.push(ContainerFault { code, offset, session: None, detail });
    }

    fn session_fault(&mut self, code: ContainerCode, offset: u64, session: SessionId, detail: String) {
        self.index.faults.push(ContainerFault { code, offset, session: Some(session), detail });
    }

    fn find_sections(&mut self) -> io::Result<()> {
        let mut at = MAGIC.len() as u64;
        let mut last = 0;
        while at < self.len {
            let left = self.len - at;
            if left < SECTION_HEADER_BYTES {
                self.cut = true;
                self.fault(ContainerCode::BundleTruncated, at, format!("{left} bytes where a section begins with 9"));
                break;
            }
            if self.index.sections.len() == SECTIONS_MAX {
                self.fault(ContainerCode::LimitExceeded, at, format!("more than {SECTIONS_MAX} sections"));
                break;
            }
            let (kind, len) = self.section_header(at)?;
            self.check_kind(at, last, kind);
            let (offset, left) = (at + SECTION_HEADER_BYTES, left - SECTION_HEADER_BYTES);
            if len > left {
                self.cut = true;
                let detail = format!("a section of type {kind} with {len} bytes, {left} are left");
                self.fault(ContainerCode::BundleTruncated, at + 1, detail);
            }
            let len = len.min(left);
            self.index.sections.push(Section { kind, offset, len });
            (at, last) = (offset + len, kind);
        }
        if self.index.sections.first().is_none_or(|first| first.kind != kind::MANIFEST) {
            self.fault(ContainerCode::BundleMalformed, MAGIC.len() as u64, "no manifest comes first".to_owned());
        }
        Ok(())
    }

    fn section_header(&mut self, at: u64) -> io::Result<(u8, u64)> {
        self.input.seek(SeekFrom::Start(at))?;
        let [kind] = self.array()?;
        Ok((kind, self.number()?))
    }

    fn check_kind(&mut self, at: u64, last: u8, kind: u8) {
        let detail = match kind {
            kind::MANIFEST | kind::ENTRIES | kind::BLOBS | kind::TRAILER => match kind.cmp(&last) {
                Ordering::Greater => return,
                Ordering::Equal if kind == kind::ENTRIES || kind == kind::BLOBS => return,
                Ordering::Equal => format!("a second section of type {kind}"),
                Ordering::Less => format!("a section of type {kind} after one of type {last}"),
            },
            // Keys, proofs, checkpoints and the registry: what nobody here reads must not be passed over as if it were
            // in order.
            2 | 5..=7 => format!("a section of type {kind}, which this version neither writes nor reads"),
            _ => format!("no section has type {kind}"),
        };
        self.fault(ContainerCode::BundleMalformed, at, detail);
    }

    fn read_manifest(&mut self, section: Section) -> io::Result<()> {
        if self.index.manifest.is_some() || self.is_cut(section) {
            return Ok(());
        }
        if section.len > MANIFEST_BYTES_MAX {
            let detail = format!("a manifest of {} bytes, at most {MANIFEST_BYTES_MAX}", section.len);
            self.fault(ContainerCode::LimitExceeded, section.offset, detail);
            return Ok(());
        }
        self.input.seek(SeekFrom::Start(section.offset))?;
        let mut bytes = Vec::new();
        self.input.by_ref().take(section.len).read_to_end(&mut bytes)?;
        match Manifest::decode(&bytes) {
            Ok(manifest) => self.index.manifest = Some(manifest),
            Err(what) => self.fault(ContainerCode::BundleMalformed, section.offset, format!("the manifest: {what}")),
        }
        Ok(())
    }

    fn read_entries(&mut self, section: Section) -> io::Result<()> {
        if section.len < ENTRIES_HEADER_BYTES {
            return self.too_short(section);
        }
        self.input.seek(SeekFrom::Start(section.offset))?;
        let session = SessionId(self.array()?);
        let entries = EntriesSection {
            session,
            first_seq: self.number()?,
            count: self.number()?,
            offset: section.offset + ENTRIES_HEADER_BYTES,
            len: section.len - ENTRIES_HEADER_BYTES,
        };
        if self.index.entries.iter().any(|known| known.session == session) {
            let detail = format!("a second section with entries of session {session}");
            self.session_fault(ContainerCode::BundleMalformed, section.offset, session, detail);
            return Ok(());
        }
        // The system session comes first, and nothing but its entries says which that is.
        if self.index.entries.len() > 1 && self.index.entries.last().is_some_and(|last| last.session > session) {
            let detail = format!("session {session} is out of order");
            self.session_fault(ContainerCode::BundleMalformed, section.offset, session, detail);
        }
        let walk = Walk::through(session, &mut self.input, entries.len)?;
        if walk.whole && (walk.count != entries.count || walk.count == 0) && !self.is_cut(section) {
            let detail = format!("{} entries, the section says {}", walk.count, entries.count);
            self.session_fault(ContainerCode::BundleMalformed, section.offset + 40, session, detail);
        }
        self.index.heads.extend(walk.head.map(|head| (session, head)));
        self.index.entries.push(entries);
        self.walks.push(walk);
        Ok(())
    }

    fn read_blobs(&mut self, section: Section) -> io::Result<()> {
        if section.len < 32 {
            return self.too_short(section);
        }
        self.input.seek(SeekFrom::Start(section.offset))?;
        let session = SessionId(self.array()?);
        if let Some(detail) = self.misplaced_blobs(session) {
            self.session_fault(ContainerCode::BundleMalformed, section.offset, session, detail);
        }
        if self.index.blobs.contains_key(&session) {
            return Ok(());
        }
        let (mut at, end) = (section.offset + 32, section.offset + section.len);
        let mut blobs = Blobs::default();
        while at < end {
            let Some((commitment, next)) = self.blob_record(session, section, at, end)? else { break };
            blobs.by_commitment.push((commitment, at));
            at = next;
        }
        blobs.by_commitment.sort_unstable();
        if let Some(pair) = blobs.by_commitment.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let detail = format!("blob {} stands there twice", pair[1].0);
            self.session_fault(ContainerCode::BundleMalformed, pair[1].1, session, detail);
        }
        self.index.blobs.insert(session, blobs);
        Ok(())
    }

    /// Sections with blobs follow the order of those with entries, and are not empty.
    fn misplaced_blobs(&self, session: SessionId) -> Option<String> {
        let place = |session| self.index.entries.iter().position(|entries| entries.session == session);
        if self.index.blobs.contains_key(&session) {
            return Some(format!("a second section with blobs of session {session}"));
        }
        match place(session) {
            None => Some(format!("blobs of session {session}, which has no entries here")),
            Some(here) if self.index.blobs.keys().any(|other| place(*other) > Some(here)) => {
                Some(format!("the blobs of session {session} are out of order"))
            }
            Some(_) => None,
        }
    }

    /// The commitment of the record at `at` and where the next one begins; `None` if there is no whole record.
    fn blob_record(
        &mut self,
        session: SessionId,
        section: Section,
        at: u64,
        end: u64,
    ) -> io::Result<Option<(Commitment, u64)>> {
        let left = end - at;
        if left < BLOB_HEADER_BYTES {
            if !self.is_cut(section) {
                let detail = format!("{left} bytes where a blob begins with {BLOB_HEADER_BYTES}");
                self.session_fault(ContainerCode::BundleMalformed, at, session, detail);
            }
            return Ok(None);
        }
        self.input.seek(SeekFrom::Start(at))?;
        let commitment = Commitment(self.array()?);
        let _salt: [u8; 32] = self.array()?;
        let len = self.number()?;
        let (len_at, left) = (at + BLOB_HEADER_BYTES - 8, left - BLOB_HEADER_BYTES);
        if len > BLOB_BYTES_MAX {
            let detail = format!("a blob of {len} bytes, at most {BLOB_BYTES_MAX}");
            self.session_fault(ContainerCode::LimitExceeded, len_at, session, detail);
            return Ok(None);
        }
        if len > left {
            if !self.is_cut(section) {
                let detail = format!("a blob of {len} bytes, {left} are left in its section");
                self.session_fault(ContainerCode::BundleMalformed, len_at, session, detail);
            }
            return Ok(None);
        }
        Ok(Some((commitment, at + BLOB_HEADER_BYTES + len)))
    }

    fn too_short(&mut self, section: Section) -> io::Result<()> {
        if !self.is_cut(section) {
            let detail = format!("{} bytes are too few for a section of type {}", section.len, section.kind);
            self.fault(ContainerCode::BundleMalformed, section.offset, detail);
        }
        Ok(())
    }

    fn compare_manifest(&mut self) {
        let Some(manifest) = self.index.manifest.take() else { return };
        let at = self.index.sections.first().map_or(0, |section| section.offset);
        let claimed: Vec<_> = manifest.sessions.iter().map(|claim| claim.session).collect();
        let found: Vec<_> = self.index.entries.iter().map(|entries| entries.session).collect();
        if claimed != found {
            let detail = format!("the manifest lists {} sessions, not the {} that follow", claimed.len(), found.len());
            self.fault(ContainerCode::ManifestMismatch, at, detail);
        }
        for claim in &manifest.sessions {
            if let Some(place) = found.iter().position(|session| *session == claim.session) {
                for detail in self.contradictions(claim, &manifest.omitted, place) {
                    self.session_fault(ContainerCode::ManifestMismatch, at, claim.session, detail);
                }
            }
        }
        if let Some(omitted) = manifest.omitted.iter().find(|omitted| !found.contains(&omitted.session)) {
            let detail = format!("something of session {} is omitted, which is not here", omitted.session);
            self.session_fault(ContainerCode::ManifestMismatch, at, omitted.session, detail);
        }
        self.index.manifest = Some(manifest);
    }

    /// What the manifest says of a session against what is there.
    fn contradictions(&self, claim: &ManifestSession, omitted: &[Omitted], place: usize) -> Vec<String> {
        let (entries, walk) = (&self.index.entries[place], &self.walks[place]);
        let none = Blobs::default();
        let blobs = self.index.blobs.get(&claim.session).unwrap_or(&none);
        let omitted: Vec<_> = omitted.iter().filter(|omitted| omitted.session == claim.session).collect();
        let left_out: BTreeSet<_> = omitted.iter().filter_map(|omitted| omitted.blob).collect();
        let mut rows = vec![
            ("first", claim.first.to_string(), entries.first_seq.to_string()),
            ("blobs", claim.blobs.to_string(), blobs.by_commitment.len().to_string()),
            ("omitted", claim.omitted.to_string(), left_out.len().to_string()),
        ];
        // Where an entry is damaged the rest of its section cannot be told, and the entry is what is wrong.
        if walk.whole
            && let Some(head) = walk.head
        {
            let missing = |blob: &&Commitment| blobs.find(**blob).is_none() && !left_out.contains(blob);
            let absent = walk.referred.iter().filter(missing).count() as u64;
            let due = ManifestSession::of(entries.first_seq, &head, claim.blobs, absent);
            rows.extend([
                ("last", claim.last.to_string(), due.last.to_string()),
                ("head", claim.head.hash.to_string(), due.head.hash.to_string()),
                ("time of the head", claim.head.time_us.to_string(), due.head.time_us.to_string()),
                ("kind of the head", claim.head.kind.to_string(), due.head.kind.to_string()),
                ("status", claim.status.to_string(), due.status.to_string()),
                ("absent", claim.absent.to_string(), due.absent.to_string()),
            ]);
        }
        let differs = |(what, claimed, found): (&str, String, String)| {
            (claimed != found).then(|| format!("{what} is {claimed} in the manifest, the content says {found}"))
        };
        let mut contradictions: Vec<String> = rows.into_iter().filter_map(differs).collect();
        let here = |omitted: &&&Omitted| match (omitted.blob, omitted.entries) {
            (Some(blob), None) => blobs.find(blob).is_some(),
            (None, Some((from, to))) => from > to || (from <= claim.last && to >= claim.first),
            _ => true,
        };
        contradictions.extend(omitted.iter().find(here).map(|omitted| format!("{omitted:?} is not omitted")));
        contradictions
    }

    fn check_trailer(&mut self) -> io::Result<()> {
        let trailer = self.index.sections.last().copied().filter(|section| section.kind == kind::TRAILER);
        let Some(trailer) = trailer else {
            if !self.cut {
                self.fault(ContainerCode::BundleTruncated, self.len, "the file ends without a trailer".to_owned());
            }
            return Ok(());
        };
        if trailer.len != TRAILER_BYTES {
            return self.too_short(trailer);
        }
        self.input.seek(SeekFrom::Start(0))?;
        let mut hasher = hasher(Context::Bundle);
        let mut covered = self.input.by_ref().take(trailer.offset - SECTION_HEADER_BYTES);
        let mut bytes = vec![0; 1 << 16];
        loop {
            match covered.read(&mut bytes)? {
                0 => break,
                len => hasher.update(&bytes[..len]),
            };
        }
        self.input.seek(SeekFrom::Start(trailer.offset))?;
        let (due, found) = (*hasher.finalize().as_bytes(), self.array::<32>()?);
        if due != found {
            let detail = "the bytes before the trailer are not those it was made for".to_owned();
            self.fault(ContainerCode::BundleTrailer, trailer.offset, detail);
        }
        Ok(())
    }

    fn is_cut(&self, section: Section) -> bool {
        self.cut && section.offset + section.len == self.len
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_be_bytes)
    }
}
