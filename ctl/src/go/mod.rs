//! Go's ways of writing values: etcdctl's output is made of them, so ours must be too.

mod duration;
mod json;
mod number;
mod quote;
mod scan;

pub use duration::{format_duration, parse_duration};
pub use json::{Array, Object, escape_log};
pub use number::{format_bytes, parse_bool, parse_int, parse_uint};
pub use quote::{quote, quote_char, unquote};
pub use scan::{Comparison, scan_comparison, split_arguments};
