//! URLs of listeners and members as flags name them; what a URL is, is in `model/url.rs`.

pub use crate::model::url::{Scheme, Url, parse_cluster, texts};
