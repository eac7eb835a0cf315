//! What goes over the wire: header text, bodies, and the plain request and response the model works on.

pub mod errors;
pub mod form;
pub mod headers;
pub mod iso;
pub mod message;
