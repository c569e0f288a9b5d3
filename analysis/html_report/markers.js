// Markers of curves, which tell methods apart without color, in the shapes of the figures.

const BLACK = "#000000";
const MARKED_POINTS = 15, FEW_LINES = 8; // as in the figures
const APART = 90, FEWEST = 4; // pixels between the markers of a line, and how many of them span the axis at least
const PLUS = [[-0.5, -1.25], [0.5, -1.25], [0.5, -0.5], [1.25, -0.5], [1.25, 0.5], [0.5, 0.5],
  [0.5, 1.25], [-0.5, 1.25], [-0.5, 0.5], [-1.25, 0.5], [-1.25, -0.5], [-0.5, -0.5]];
const turned = (corners, degrees) => {
  const [cos, sin] = [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)];
  return corners.map(([x, y]) => [x * cos - y * sin, x * sin + y * cos]);
};
const SQUARE = [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]];
const TRIANGLE = [[0, -1.1], [1.1, 0.9], [-1.1, 0.9]];
const SHAPES = { s: SQUARE, D: turned(SQUARE, 45), P: PLUS, X: turned(PLUS, 45),
  "^": TRIANGLE, ">": turned(TRIANGLE, 90), v: turned(TRIANGLE, 180), "<": turned(TRIANGLE, 270) };

// The outline of a marker as the text of an SVG path; a circle if the shape has no corners.
function outline(marker, x, y, radius) {
  if (!SHAPES[marker]) return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
  return `M${SHAPES[marker].map(([dx, dy]) => `${x + radius * dx} ${y + radius * dy}`).join("L")}Z`;
}

// The places of the values that have a marker: each of a few points, otherwise at equal distances
// along the axis, and at other ones for each line, so that lines that coincide show all markers.
function markedPlaces(steps, values, number, count, first, last, spanning) {
  const places = [...values.keys()].filter((i) => values[i] !== null && steps[i] >= first && steps[i] <= last);
  if (places.length < 2) return places;
  const least = Math.min(...places.slice(1).map((place, i) => steps[place] - steps[places[i]]));
  if (count <= FEW_LINES && last - first <= MARKED_POINTS * least) return places;
  const bins = places.map((place) => Math.floor((steps[place] - first) / ((last - first) / spanning) + number / count));
  const chosen = places.filter((_, i) => i && bins[i] !== bins[i - 1]);
  return chosen.length ? chosen : places.slice(-1);
}

function drawMarkers(plot, lines, small) {
  const pen = plot.ctx, radius = (small ? 2.6 : 3.5) * devicePixelRatio, { min, max } = plot.scales.x;
  const [steps, log] = [plot.data[0], plot.scales.x.distr === 3];
  const along = log ? (step) => Math.log10(step) : (step) => step;
  const [drawn, first, last] = [steps.map(along), along(min), along(max)];
  const spanning = Math.max(FEWEST, Math.round(plot.bbox.width / devicePixelRatio / APART));
  pen.save();
  pen.beginPath();
  pen.rect(plot.bbox.left - 2 * radius, plot.bbox.top - 2 * radius, plot.bbox.width + 4 * radius, plot.bbox.height + 4 * radius);
  pen.clip();
  pen.strokeStyle = css("--back");
  pen.lineWidth = (small ? 0.5 : 0.8) * devicePixelRatio;
  lines.forEach(({ line, values }, number) => {
    pen.fillStyle = ink(line.color);
    for (const place of markedPlaces(drawn, values, number, lines.length, first, last, spanning)) {
      const shape = new Path2D(outline(line.marker, plot.valToPos(steps[place], "x", true), plot.valToPos(values[place], "y", true), radius));
      pen.fill(shape);
      pen.stroke(shape);
    }
  });
  pen.restore();
}

// Black lines are drawn in the color of the text, which is light on a dark page.
const ink = (color) => (color === BLACK ? css("--text") : color);
const paint = (color) => (color === BLACK ? "var(--text)" : color);

// The entry of a curve in a legend: a piece of the line with its marker.
function swatch({ color, dashes, marker }) {
  const dash = dashes.map((length) => 2 * length).join(" ");
  return svg("svg", { width: 26, height: 10, class: "swatch", "aria-hidden": "true", style: `color:${paint(color)}` }, [
    svg("line", { x1: 0, y1: 5, x2: 26, y2: 5, "stroke-dasharray": dash }), svg("path", { d: outline(marker, 13, 5, 3.6) })]);
}
