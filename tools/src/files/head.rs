//! What all files begin with: their encoding, `apiVersion`, `kind`, and what `metadata` has in common.

use std::collections::BTreeMap;

use super::fields::Fields;
use super::problem::{FileCode, FileError, Problems, clean, file_error, is_hostile, quote};
use super::yaml::{Node, Place};
use super::{Format, VERSION_BYTES_MAX};

/// The text of a file, without a byte-order mark.
///
/// # Errors
/// Too many bytes, or not UTF-8.
pub fn decode<'b>(file: &str, bytes: &'b [u8], format: &Format) -> Result<&'b str, Vec<FileError>> {
    if bytes.len() > format.bytes_max {
        let message = format!("the file is larger than {} KiB", format.bytes_max >> 10);
        let hint = format!("{} {} names data, it does not hold it", article(format.noun), format.noun);
        return Err(vec![file_error(file, Place::START, FileCode::TooLarge, message, hint)]);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").trim_start_matches('\u{feff}').chars().count() + 1;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let place = Place { line: number(line), column: number(column) };
        vec![file_error(file, place, FileCode::NotUtf8, "the file is not UTF-8", "save it as UTF-8")]
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

impl Problems<'_> {
    /// `apiVersion` and `kind`: each has one value.
    pub fn api_and_kind(&mut self, top: &Fields<'_>) {
        let kind = self.format.kind;
        self.fixed(top, "apiVersion", "toka/v1", FileCode::BadVersion);
        self.fixed(top, "kind", kind, FileCode::BadKind);
    }

    fn fixed(&mut self, top: &Fields<'_>, name: &str, value: &str, code: FileCode) {
        let Some(node) = top.required(name, &format!("{name}: {value}"), self) else { return };
        match self.text(node, name) {
            Some(text) if text != value => {
                let message = format!("`{name}` is {}", quote(text));
                self.report(node.place, code, message, format!("write `{name}: {value}`"));
            }
            Some(_) | None => {}
        }
    }

    /// A semantic version of at most `most` bytes.
    pub fn version(&mut self, node: &Node, what: &str, most: usize) -> Option<String> {
        let text = self.text(node, what)?;
        if text.len() <= most.min(VERSION_BYTES_MAX) && is_semver(text) {
            return Some(text.to_owned());
        }
        let hint = match text.strip_prefix('v').filter(|rest| is_semver(rest)) {
            Some(rest) => format!("leave the `v` out: `{rest}`"),
            None => "write three numbers, for example `1.0.0` or `1.0.0-rc.1`".to_owned(),
        };
        let message = format!("{} is no semantic version", quote(text));
        self.report(node.place, FileCode::BadVersion, message, hint);
        None
    }

    /// A mapping of at most `count` labels to text, with names and texts of so many bytes.
    pub fn labels(
        &mut self,
        node: &Node,
        what: &str,
        count: usize,
        (name_max, text_max): (usize, usize),
    ) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(members) = self.map(node, what) else { return labels };
        if members.len() > count {
            let message = format!("`{what}` has {} entries", members.len());
            self.report(node.place, FileCode::TooMany, message, format!("at most {count} are allowed"));
        }
        for member in members {
            let what = format!("{what}.{}", clean(&member.name, 60));
            if self.label_name(member.place, &member.name, name_max)
                && let Some(text) = self.plain_text(&member.value, &what, text_max, false)
            {
                labels.insert(member.name.clone(), text);
            }
        }
        labels
    }

    /// Whether a name can name a label; reports when it cannot.
    pub fn label_name(&mut self, place: Place, name: &str, most: usize) -> bool {
        let fine = !name.is_empty() && name.len() <= most && !name.contains(is_hostile);
        if !fine {
            let message = format!("{} cannot name a label", quote(name));
            self.report(place, FileCode::TooLong, message, format!("1 to {most} bytes that can be seen"));
        }
        fine
    }
}

/// Whether a text is a version in the sense of Semantic Versioning 2.0.0.
pub fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(|part| number(part) && part.len() <= 19)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}
