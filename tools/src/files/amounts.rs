//! Durations and sizes in a tree: numbers with a unit, in a range.

use std::ops::RangeInclusive;

use super::problem::{FileCode, Problems, quote};
use super::quantity::{Duration, QuantityError, Size};
use super::yaml::{Kind, Node};

const DURATION_HINT: &str = "write a number with a unit: `90s`, `10m`, `1h30m`";
const SIZE_HINT: &str = "write a number with a unit: `512KiB`, `64MiB`, `1.5GB`";

impl Problems<'_> {
    /// A duration, in µs.
    pub fn duration(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.with_unit(node, what, DURATION_HINT)?;
        let duration = Duration::parse(text).map(|duration| duration.0);
        self.amount(node, what, text, duration, DURATION_HINT, range, &|amount| Duration(amount).to_string())
    }

    /// A size, in bytes.
    pub fn size(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.with_unit(node, what, SIZE_HINT)?;
        let size = Size::parse(text).map(|size| size.0);
        self.amount(node, what, text, size, SIZE_HINT, range, &|amount| Size(amount).to_string())
    }

    fn with_unit<'n>(&mut self, node: &'n Node, what: &str, hint: &str) -> Option<&'n str> {
        if let Kind::Int(number) = node.kind {
            let message = format!("`{what}` is {number} without a unit");
            self.report(node.place, FileCode::BadUnit, message, hint);
            return None;
        }
        self.text(node, what)
    }

    #[expect(clippy::too_many_arguments, reason = "what differs between a duration and a size")]
    fn amount(
        &mut self,
        node: &Node,
        what: &str,
        text: &str,
        amount: Result<u64, QuantityError>,
        hint: &str,
        range: RangeInclusive<u64>,
        shown: &dyn Fn(u64) -> String,
    ) -> Option<u64> {
        match amount {
            Ok(amount) if range.contains(&amount) => Some(amount),
            Ok(_) => {
                let hint = match range.start() {
                    1 => format!("more than nothing and at most {}", shown(*range.end())),
                    least => format!("from {} to {}", shown(*least), shown(*range.end())),
                };
                self.report(node.place, FileCode::OutOfRange, format!("`{what}` is {}", quote(text)), hint);
                None
            }
            Err(error) => self.no_quantity(node, what, error, hint),
        }
    }

    /// Reports why the text of a node is no quantity.
    pub fn no_quantity<T>(&mut self, node: &Node, what: &str, error: QuantityError, hint: &str) -> Option<T> {
        let text = self.text(node, what)?;
        self.report(node.place, FileCode::BadUnit, format!("`{what}` is {}: {error}", quote(text)), hint);
        None
    }
}
