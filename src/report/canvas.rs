//! Pixels, text and bars on one picture.

use image::{Rgb, RgbImage};

use super::font::{GLYPH, descent, glyph};

const TEXT: Rgb<u8> = Rgb([230, 230, 230]);

/// A black picture to draw on, with one size of text.
pub(super) struct Canvas {
    pub(super) image: RgbImage,
    /// Pixels per pixel of the font.
    text: u32,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32, text: u32) -> Self {
        Self { image: RgbImage::new(width, height), text }
    }

    /// Distance from one line of text to the next.
    pub(super) fn line(text: u32) -> u32 {
        (GLYPH.1 + 4) * text
    }

    /// Width of `characters` characters.
    pub(super) fn text_width(characters: usize, text: u32) -> u32 {
        (GLYPH.0 + 1) * text * characters as u32
    }

    /// One line of text with its upper left corner at `(x, y)`; what lies outside the picture is cut.
    pub(super) fn text(&mut self, x: u32, y: u32, line: &str) {
        for (i, character) in line.chars().enumerate() {
            let left = x + Self::text_width(i, self.text);
            for (row, bits) in (descent(character)..).zip(glyph(character)) {
                for column in (0..GLYPH.0).filter(|column| bits >> (GLYPH.0 - 1 - column) & 1 == 1) {
                    self.square(left + column * self.text, y + row * self.text, self.text, TEXT);
                }
            }
        }
    }

    /// A horizontal bar with the colours of `map` from 0 to 1.
    pub(super) fn bar(&mut self, x: u32, y: u32, width: u32, height: u32, map: impl Fn(f32) -> Rgb<u8>) {
        for i in 0..width {
            let colour = map(i as f32 / (width - 1).max(1) as f32);
            for j in 0..height {
                self.square(x + i, y + j, 1, colour);
            }
        }
    }

    /// A filled square, cut at the border.
    pub(super) fn square(&mut self, x: u32, y: u32, side: u32, colour: Rgb<u8>) {
        let (width, height) = self.image.dimensions();
        for j in y.min(height)..(y + side).min(height) {
            for i in x.min(width)..(x + side).min(width) {
                self.image.put_pixel(i, j, colour);
            }
        }
    }
}
