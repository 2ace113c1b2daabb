//! A codec whose answers are already encoded: a Range or a watch event is spliced together from
//! bytes as they lie on disk, so that nothing is decoded only to be encoded again.

use bytes::{BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// One encoded protobuf message in pieces that are written one after the other.
#[derive(Debug, Default, Clone)]
pub struct Ready {
    pieces: Vec<Bytes>,
}

impl Ready {
    /// A message that lies in one piece.
    pub fn new(message: Bytes) -> Self {
        Self {
            pieces: vec![message],
        }
    }

    /// A message that lies in many pieces.
    pub fn from_pieces(pieces: Vec<Bytes>) -> Self {
        Self { pieces }
    }

    /// Encodes `message` whole.
    pub fn encode(message: &impl Message) -> Self {
        Self::new(message.encode_to_vec().into())
    }

    /// Appends bytes behind what is there; protobuf fields may stand in any order.
    pub fn push(&mut self, piece: Bytes) {
        self.pieces.push(piece);
    }

    /// The length of the whole message in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether the message has no bytes (which is a valid message).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message in one piece, for callers that must decode it.
    pub fn into_bytes(self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.into_iter().next().unwrap_or_default();
        }
        self.pieces.concat().into()
    }
}

/// Decodes requests as prost does and writes [`Ready`] answers as they are.
#[derive(Debug)]
pub struct ReadyCodec<U> {
    marker: std::marker::PhantomData<U>,
}

impl<U> Default for ReadyCodec<U> {
    fn default() -> Self {
        Self {
            marker: std::marker::PhantomData,
        }
    }
}

impl<U> Codec for ReadyCodec<U>
where
    U: Message + Default + Send + 'static,
{
    type Encode = Ready;
    type Decode = U;
    type Encoder = ReadyEncoder;
    type Decoder = ReadyDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ReadyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ReadyDecoder {
            marker: std::marker::PhantomData,
        }
    }
}

/// See [`ReadyCodec`].
#[derive(Debug)]
pub struct ReadyEncoder;

impl Encoder for ReadyEncoder {
    type Item = Ready;
    type Error = Status;

    fn encode(&mut self, item: Ready, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(item.len());
        for piece in item.pieces {
            dst.put_slice(&piece);
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// See [`ReadyCodec`].
#[derive(Debug)]
pub struct ReadyDecoder<U> {
    marker: std::marker::PhantomData<U>,
}

impl<U: Message + Default> Decoder for ReadyDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(src)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
