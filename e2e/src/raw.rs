//! Calls below the generated clients: bytes as they are, right or wrong.

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A codec that takes and gives messages as bytes.
#[derive(Debug, Default, Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Makes a unary call with any path and any bytes as its message.
///
/// # Errors
/// The server's refusal, or a broken connection.
pub async fn unary(channel: Channel, path: &'static str, message: &[u8]) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = Request::new(Bytes::copy_from_slice(message));
    let path = PathAndQuery::from_static(path);
    let answer = client.unary(request, path, BytesCodec).await?;
    Ok(answer.into_inner())
}

/// Writes bytes to a port and reads until the other side closes or says nothing more.
///
/// # Errors
/// When nobody listens.
pub async fn send(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // The server may close while it is still being written to.
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A server that waits for the rest of a frame is in its right: a short look is enough.
    tokio::time::timeout(std::time::Duration::from_millis(300), read)
        .await
        .ok();
    Ok(answer)
}
