//! Writing SVG so that it cannot be malformed: tags close in the order in which they were opened, text is escaped.

use std::fmt::Write as _;

/// A document being written.
#[derive(Debug, Default)]
pub(super) struct Svg {
    text: String,
    open: Vec<&'static str>,
}

impl Svg {
    /// Opens a tag; everything until [`Svg::close`] lies in it.
    pub(super) fn open(&mut self, tag: &'static str, attributes: &[(&str, &dyn std::fmt::Display)]) {
        self.start(tag, attributes);
        self.text.push_str(">\n");
        self.open.push(tag);
    }

    /// Closes the tag opened last.
    pub(super) fn close(&mut self) {
        if let Some(tag) = self.open.pop() {
            writeln!(self.text, "</{tag}>").expect("writing to a String cannot fail");
        }
    }

    /// A tag without content.
    pub(super) fn leaf(&mut self, tag: &'static str, attributes: &[(&str, &dyn std::fmt::Display)]) {
        self.start(tag, attributes);
        self.text.push_str("/>\n");
    }

    /// A tag with nothing but text.
    pub(super) fn text(
        &mut self,
        tag: &'static str,
        attributes: &[(&str, &dyn std::fmt::Display)],
        text: &str,
    ) {
        self.start(tag, attributes);
        writeln!(self.text, ">{}</{tag}>", escaped(text)).expect("writing to a String cannot fail");
    }

    /// A style sheet; it holds no markup characters.
    pub(super) fn style(&mut self, css: &str) {
        self.text("style", &[], css);
    }

    fn start(&mut self, tag: &str, attributes: &[(&str, &dyn std::fmt::Display)]) {
        write!(self.text, "<{tag}").expect("writing to a String cannot fail");
        for (name, value) in attributes {
            write!(self.text, " {name}=\"{}\"", escaped(&value.to_string()))
                .expect("writing to a String cannot fail");
        }
    }

    /// The document, every tag closed.
    pub(super) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_closed_and_text_is_escaped() {
        let mut svg = Svg::default();
        svg.open("svg", &[("aria-label", &"a \"b\" & c")]);
        svg.open("g", &[]);
        svg.text("text", &[("x", &1)], "1 < 2");
        assert_eq!(
            svg.finish(),
            "<svg aria-label=\"a &quot;b&quot; &amp; c\">\n<g>\n<text x=\"1\">1 &lt; 2</text>\n</g>\n</svg>\n"
        );
    }
}
