//! What all pictures of the project share: a writer of SVG, colours and type, and the lines of the plot.
//!
//! A picture is one file without fonts or scripts from elsewhere; light or dark is the reader's choice
//! (`prefers-color-scheme`). The writer cannot make it malformed: tags close in the order in which they were opened, text is escaped.

use std::fmt::Write as _;

/// Colours and type of all pictures, by class.
pub const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: #22303c; }
.title { font-size: 20px; font-weight: 650; }
.name { font-size: 14px; font-weight: 650; }
.soft { fill: #5b6b7a; }
.num { font-variant-numeric: tabular-nums; }
.end { text-anchor: end; }
.mid { text-anchor: middle; }
.paper { fill: #ffffff; }
.plot { fill: #f5f7f9; }
.grid { stroke: #dde3e9; stroke-width: 1; }
.own { fill: #3b82c4; }
.other { fill: #b9b2a3; }
.quota { stroke: #22303c; stroke-width: 1.4; stroke-dasharray: 6 3; fill: none; }
.hit { fill: #cf3a2b; }
.their { fill: #d99a3d; }
.outage { fill: #e9c46a; fill-opacity: 0.28; }
.window { fill: #8a6fc0; fill-opacity: 0.22; }
.stagger { fill: #8a6fc0; fill-opacity: 0.09; }
.kept { fill: #2f8f5b; fill-opacity: 0.16; }
.line { stroke: #3b82c4; stroke-width: 2; fill: none; }
.done { stroke: #2f8f5b; stroke-width: 1.6; }
.bad { fill: #cf3a2b; }
@media (prefers-color-scheme: dark) {
text { fill: #e4e9ee; }
.soft { fill: #93a1af; }
.paper { fill: #11161b; }
.plot { fill: #1a2129; }
.grid { stroke: #2a343f; }
.own { fill: #5aa2e0; }
.other { fill: #77705f; }
.quota { stroke: #e4e9ee; }
.hit { fill: #ff6b5b; }
.their { fill: #e5ad58; }
.outage { fill: #e9c46a; fill-opacity: 0.18; }
.window { fill: #a78fdc; fill-opacity: 0.30; }
.stagger { fill: #a78fdc; fill-opacity: 0.13; }
.kept { fill: #54c08a; fill-opacity: 0.20; }
.line { stroke: #5aa2e0; }
.done { stroke: #54c08a; }
.bad { fill: #ff6b5b; }
}
";

/// A number with at most two decimals: enough for a picture, and short.
pub fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A document being written.
#[derive(Debug, Default)]
pub struct Svg {
    text: String,
    open: Vec<&'static str>,
}

impl Svg {
    /// Opens a tag; everything until [`Svg::close`] lies in it.
    pub fn open(&mut self, tag: &'static str, attributes: &[(&str, &dyn std::fmt::Display)]) {
        self.start(tag, attributes);
        self.text.push_str(">\n");
        self.open.push(tag);
    }

    /// Closes the tag opened last.
    pub fn close(&mut self) {
        if let Some(tag) = self.open.pop() {
            writeln!(self.text, "</{tag}>").expect("writing to a String cannot fail");
        }
    }

    /// A tag without content.
    pub fn leaf(&mut self, tag: &'static str, attributes: &[(&str, &dyn std::fmt::Display)]) {
        self.start(tag, attributes);
        self.text.push_str("/>\n");
    }

    /// A tag with nothing but text.
    pub fn text(&mut self, tag: &'static str, attributes: &[(&str, &dyn std::fmt::Display)], text: &str) {
        self.start(tag, attributes);
        writeln!(self.text, ">{}</{tag}>", escaped(text)).expect("writing to a String cannot fail");
    }

    /// A style sheet; it holds no markup characters.
    pub fn style(&mut self, css: &str) {
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
    pub fn finish(mut self) -> String {
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
