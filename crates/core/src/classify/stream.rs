//! What the end of an HTTP/2 stream says about the request it carried.
//!
//! On one connection many requests are under way, so a connection that ends says less about each of them than one of HTTP/1.1
//! does; but HTTP/2 has words for "I did not process this". RFC 9113 §8.7 knows exactly two of them: a reset with
//! `REFUSED_STREAM`, and a GOAWAY whose last stream lies below ours. "Requests that have not been processed have not failed;
//! clients MAY automatically retry them, even those with non-idempotent methods." Every other end says nothing.

use super::{Failure, Wrote};

/// How a stream ended before its answer's headers came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The connection took no stream any more: no frame of the request exists.
    NotOpened,
    /// The peer reset it with this error code (RFC 9113 §7).
    Reset(u32),
    /// The peer sent a GOAWAY whose last stream lies below ours. One whose last stream is ours or above says nothing and
    /// ends no stream: what comes behind it does.
    AboveGoAway,
    /// What came back is no answer that RFC 9113 allows, so our side ended the stream.
    Malformed,
    /// The connection ended.
    Lost,
}

/// The error codes of RFC 9113 §7 that are told apart.
const REFUSED_STREAM: u32 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;
const HTTP_1_1_REQUIRED: u32 = 0xd;

impl StreamEnd {
    /// How far the attempt got. `wrote`: how much of the request was handed to the connection, and `nothing` only where the
    /// connection has ended without a byte of it.
    ///
    /// `ENHANCE_YOUR_CALM` is no throttle: it is a judgement on the connection (RFC 9113 §7: "behavior that might be generating
    /// excessive load"; floods of resets or pings are what servers say it to), names no limit and no time to come back, and is
    /// not among the two words for "not processed". So it closes no gate, and the request's outcome is unknown.
    ///
    /// ```
    /// use tidegate_core::classify::{Delivery, StreamEnd, Wrote};
    ///
    /// let refused = StreamEnd::Reset(0x7).failure(Wrote::Whole);
    /// assert_eq!(refused.delivery(), Delivery::NotSent);
    /// let failed = StreamEnd::Reset(0x2).failure(Wrote::Whole);
    /// assert_eq!(failed.delivery(), Delivery::MaybeExecuted);
    /// ```
    pub const fn failure(self, wrote: Wrote) -> Failure {
        match (self, wrote) {
            (Self::NotOpened, _) | (Self::Lost, Wrote::Nothing) => Failure::ZeroBytesWritten,
            (Self::Reset(REFUSED_STREAM) | Self::AboveGoAway, _) => Failure::StreamRefused,
            (Self::Malformed, _) => Failure::AnswerUnreadable,
            // A peer can only reset what it has seen a part of.
            (Self::Reset(_) | Self::Lost, _) => Failure::Interrupted { whole: matches!(wrote, Wrote::Whole) },
        }
    }

    /// Whether the connection should carry nothing new: the peer is tired of it.
    pub const fn retires_connection(self) -> bool {
        !matches!(self, Self::Reset(code) if code != ENHANCE_YOUR_CALM && code != HTTP_1_1_REQUIRED)
    }

    /// Whether the peer will not have HTTP/2 (RFC 9113 §7, `HTTP_1_1_REQUIRED`), so that the next connection speaks HTTP/1.1.
    pub const fn wants_http1(self) -> bool {
        matches!(self, Self::Reset(HTTP_1_1_REQUIRED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::Delivery;

    /// The codes of RFC 9113 §7, and one that is not there yet.
    const CODES: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xff];

    #[test]
    fn of_all_codes_only_refused_stream_proves_that_nothing_was_done() {
        for code in CODES {
            for wrote in [Wrote::Nothing, Wrote::Part, Wrote::Whole] {
                let delivery = StreamEnd::Reset(code).failure(wrote).delivery();
                let expected = if code == 7 { Delivery::NotSent } else { Delivery::MaybeExecuted };
                assert_eq!(delivery, expected, "code {code}, {wrote:?}");
            }
        }
    }

    #[test]
    fn each_end_says_how_far_the_request_got() {
        let whole = Failure::Interrupted { whole: true };
        let part = Failure::Interrupted { whole: false };
        for (end, wrote, failure) in [
            (StreamEnd::NotOpened, Wrote::Nothing, Failure::ZeroBytesWritten),
            (StreamEnd::AboveGoAway, Wrote::Whole, Failure::StreamRefused),
            (StreamEnd::AboveGoAway, Wrote::Part, Failure::StreamRefused),
            (StreamEnd::Lost, Wrote::Nothing, Failure::ZeroBytesWritten),
            (StreamEnd::Lost, Wrote::Part, part),
            (StreamEnd::Lost, Wrote::Whole, whole),
            (StreamEnd::Reset(0xb), Wrote::Whole, whole),
            (StreamEnd::Reset(0x8), Wrote::Part, part),
            (StreamEnd::Malformed, Wrote::Whole, Failure::AnswerUnreadable),
        ] {
            assert_eq!(end.failure(wrote), failure, "{end:?} {wrote:?}");
        }
    }

    #[test]
    fn one_refused_stream_leaves_its_connection_in_use_and_a_tired_peer_does_not() {
        for code in CODES {
            assert_eq!(StreamEnd::Reset(code).retires_connection(), matches!(code, 0xb | 0xd), "{code}");
            assert_eq!(StreamEnd::Reset(code).wants_http1(), code == 0xd, "{code}");
        }
        for end in [StreamEnd::NotOpened, StreamEnd::AboveGoAway, StreamEnd::Malformed, StreamEnd::Lost] {
            assert!(end.retires_connection() && !end.wants_http1(), "{end:?}");
        }
    }
}
