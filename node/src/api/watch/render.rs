//! Encodes responses: a head of their own, then the events as all watchers share them.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::encode_varint;
use quorate_proto::codec::Ready;
use quorate_proto::etcdserverpb::WatchResponse;

use crate::model::kv::ResponseHeader;
use crate::watch::{Body, CreateError, Created, Delivery, SharedEvent};

/// `WatchResponse`'s `header`, `watch_id` and `fragment`.
const TAG_HEADER: u8 = 1 << 3 | 2;
const TAG_WATCH_ID: u8 = 2 << 3;
const TAG_FRAGMENT: u8 = 7 << 3;
/// Heads are cut from blocks of this size, so that a response costs no allocation of its own.
const HEADS_BLOCK_BYTES: usize = 4096;
/// The watch ID that stands for none, or for all of the stream.
const NO_WATCH_ID: i64 = -1;

/// Makes a header at a revision.
pub(super) type HeaderAt = Box<dyn Fn(i64) -> ResponseHeader + Send>;

pub(super) struct Renderer {
    header_at: HeaderAt,
    /// The last header field with its revision: all watchers of a revision share it.
    header: (i64, Bytes),
    heads: BytesMut,
    response_bytes_max: usize,
}

impl Renderer {
    pub(super) fn new(header_at: HeaderAt, response_bytes_max: usize) -> Self {
        Self {
            header_at,
            header: (-1, Bytes::new()),
            heads: BytesMut::new(),
            response_bytes_max,
        }
    }

    pub(super) fn created(&self, created: Created) -> Ready {
        Ready::encode(&WatchResponse {
            created: true,
            ..self.response(created.watch_id, created.revision)
        })
    }

    pub(super) fn not_created(&self, error: CreateError, revision: i64) -> Ready {
        Ready::encode(&WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: error.to_string(),
            ..self.response(NO_WATCH_ID, revision)
        })
    }

    pub(super) fn canceled(&self, watch_id: i64, revision: i64) -> Ready {
        Ready::encode(&WatchResponse {
            canceled: true,
            ..self.response(watch_id, revision)
        })
    }

    /// One delivery; more than one response only if it is fragmented.
    pub(super) fn deliver(&mut self, delivery: Delivery, out: &mut VecDeque<Ready>) {
        let Delivery {
            watch_id,
            revision,
            body,
        } = delivery;
        match body {
            Body::Events {
                events,
                prev_kv,
                fragment,
            } => {
                let encoded = |event: &SharedEvent| {
                    if prev_kv {
                        event.encoded_with_previous()
                    } else {
                        event.encoded()
                    }
                };
                let events = events.iter().map(encoded);
                if fragment {
                    self.fragments(watch_id, revision, events.collect(), out);
                } else {
                    let head = self.head(watch_id, revision, false);
                    let pieces = std::iter::once(head).chain(events).collect();
                    out.push_back(Ready::from_pieces(pieces));
                }
            }
            Body::Progress => {
                out.push_back(Ready::encode(&self.response(watch_id, revision)));
            }
            Body::Compacted(compact_revision) => out.push_back(Ready::encode(&WatchResponse {
                canceled: true,
                compact_revision,
                ..self.response(watch_id, revision)
            })),
        }
    }

    fn response(&self, watch_id: i64, revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some((self.header_at)(revision)),
            watch_id,
            ..WatchResponse::default()
        }
    }

    /// The same bytes as [`Renderer::response`] encoded, with the header encoded once a revision.
    fn head(&mut self, watch_id: i64, revision: i64, fragment: bool) -> Bytes {
        if self.header.0 != revision {
            let header = (self.header_at)(revision);
            let mut field = BytesMut::with_capacity(64);
            field.put_u8(TAG_HEADER);
            encode_varint(header.encoded_len() as u64, &mut field);
            field.put_slice(&header.encode_to_vec());
            self.header = (revision, field.freeze());
        }
        let len = self.header.1.len() + 1 + 10 + 2;
        if self.heads.capacity() < len {
            self.heads = BytesMut::with_capacity(HEADS_BLOCK_BYTES.max(len));
        }
        self.heads.put_slice(&self.header.1);
        if watch_id != 0 {
            self.heads.put_u8(TAG_WATCH_ID);
            encode_varint(watch_id.cast_unsigned(), &mut self.heads);
        }
        if fragment {
            self.heads.put_slice(&[TAG_FRAGMENT, 1]);
        }
        self.heads.split().freeze()
    }

    /// Cuts between events where a response would reach the limit; all but the last say so.
    fn fragments(
        &mut self,
        watch_id: i64,
        revision: i64,
        events: Vec<Bytes>,
        out: &mut VecDeque<Ready>,
    ) {
        let whole = self.head(watch_id, revision, false);
        let size: usize = whole.len() + events.iter().map(Bytes::len).sum::<usize>();
        if size < self.response_bytes_max || events.len() < 2 {
            out.push_back(Ready::from_pieces(
                std::iter::once(whole).chain(events).collect(),
            ));
            return;
        }
        let head = self.head(watch_id, revision, true);
        let mut pieces = vec![head.clone()];
        let mut size = head.len();
        for event in events {
            if pieces.len() > 1 && size + event.len() >= self.response_bytes_max {
                let full = std::mem::replace(&mut pieces, vec![head.clone()]);
                out.push_back(Ready::from_pieces(full));
                size = head.len();
            }
            size += event.len();
            pieces.push(event);
        }
        pieces[0] = whole;
        out.push_back(Ready::from_pieces(pieces));
    }
}
