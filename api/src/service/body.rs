//! Bodies of requests, within bounds of size, time and number.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};

use super::Service;
use crate::{Backend, Error};

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A body up to this size is read from everybody who seems to hold a key, as many at once as there
/// are connections.
const SMALL_BODY_BYTES: usize = 64 * 1024;
/// Larger bodies that are read at the same time: nobody has proved anything before they are there.
pub(super) const LARGE: usize = 64;

impl<B: Backend> Service<B> {
    /// Reads a body of so many bytes at most, and leaves it where it is when it has not come to its end:
    /// that the answer arrives at who is still sending is for whoever ends the connection.
    pub(crate) async fn read_body(
        &self,
        parts: &Parts,
        body: &mut Option<Body>,
        limit: usize,
    ) -> Result<Bytes, Error> {
        let announced = parts.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large(limit));
        }
        let collected = tokio::time::timeout(BODY_TIMEOUT, self.collect(body, limit)).await;
        collected.map_err(|_| Error::BodyTimeout)?
    }

    async fn collect(&self, body: &mut Option<Body>, limit: usize) -> Result<Bytes, Error> {
        let mut collected = BytesMut::new();
        let mut permit = None;
        while let Some(part) = next_part(body).await {
            let data =
                part.map_err(|error| Error::Invalid(format!("the body did not arrive: {error}")))?;
            let length = collected.len() + data.len();
            if length > limit {
                return Err(too_large(limit));
            }
            if length > SMALL_BODY_BYTES && permit.is_none() {
                let large = self.large_bodies.try_acquire().map_err(|_| Error::Unavailable)?;
                permit = Some(large);
            }
            collected.extend_from_slice(&data);
        }
        Ok(collected.freeze())
    }
}

fn too_large(limit: usize) -> Error {
    Error::TooLarge(format!("the body exceeds {limit} bytes"))
}

/// What comes next of a body; one that has ended is taken away.
async fn next_part(body: &mut Option<Body>) -> Option<Result<Bytes, axum::Error>> {
    let mut reading = Pin::new(body.as_mut()?);
    let frame = poll_fn(|cx| reading.as_mut().poll_frame(cx)).await;
    if frame.is_none() {
        *body = None;
    }
    // Trailers add nothing.
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
}
