//! Where everything goes.

use image::Rgb;

use crate::report::canvas::Canvas;

pub(super) const MARGIN: u32 = 8;
/// Narrowest panel, in pixels of the figure: 18 characters of the smallest text.
const PANEL: u32 = 216;

/// Sizes and places of a grid of panels.
pub(super) struct Layout {
    enlarge: u32,
    pub(super) panel: (u32, u32),
    pub(super) text: u32,
    pub(super) heading: Vec<String>,
    pub(super) y_titles: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Layout {
    pub(super) fn new(h: u32, w: u32, columns: usize, rows: usize, heading: &str) -> Self {
        let enlarge = PANEL.div_ceil(w);
        let panel = (w * enlarge, h * enlarge);
        let text = (panel.0 / 200).max(2);
        let width = MARGIN + columns as u32 * (panel.0 + MARGIN);
        let heading = wrap(heading, ((width - 2 * MARGIN) / Canvas::text_width(1, text)) as usize);
        let gap = if heading.is_empty() { 0 } else { MARGIN };
        let y_titles = MARGIN + heading.len() as u32 * Canvas::line(text) + gap;
        let mut layout = Self { enlarge, panel, text, heading, y_titles, width, height: 0 };
        layout.height = layout.y(rows as u32);
        layout
    }

    pub(super) fn x(&self, column: u32) -> u32 {
        MARGIN + column * (self.panel.0 + MARGIN)
    }

    pub(super) fn y(&self, row: u32) -> u32 {
        let captions = self.text * 2 + 2 * Canvas::line(self.text) + MARGIN / 2;
        self.y_titles + Canvas::line(self.text) + row * (self.panel.1 + captions)
    }

    pub(super) fn draw(&self, canvas: &mut Canvas, x: u32, y: u32, colour: impl Fn(usize, usize) -> Rgb<u8>) {
        for i in 0..self.panel.1 / self.enlarge {
            for j in 0..self.panel.0 / self.enlarge {
                let colour = colour(i as usize, j as usize);
                canvas.square(x + j * self.enlarge, y + i * self.enlarge, self.enlarge, colour);
            }
        }
    }
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let pieces: Vec<char> = word.chars().collect();
        for piece in pieces.chunks(width.max(1)) {
            let piece: String = piece.iter().collect();
            match lines.last_mut().filter(|line| line.chars().count() + 1 + piece.chars().count() <= width) {
                Some(line) => *line = format!("{line} {piece}"),
                None => lines.push(piece),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrap("mri-4x, dps: simulated", 9), ["mri-4x,", "dps:", "simulated"]);
        assert_eq!(wrap("mri-4x, dps: simulated", 12), ["mri-4x, dps:", "simulated"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert!(wrap("", 3).is_empty());
    }

    #[test]
    fn panels_are_enlarged_by_whole_factors_until_the_text_fits() {
        for (w, enlarge) in [(1, 216), (64, 4), (215, 2), (216, 1), (1000, 1)] {
            let layout = Layout::new(10, w, 5, 2, "heading");
            assert_eq!((layout.enlarge, layout.panel), (enlarge, (w * enlarge, 10 * enlarge)));
            assert!(Canvas::text_width(18, layout.text) <= layout.panel.0, "width {w}");
        }
    }
}
