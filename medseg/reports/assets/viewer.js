// The viewer of a case page: three planes of a scan with its lesions, drawn on 2-D canvases; nothing else is loaded.
// Voxels come in the order x (to the patient's left), y (to the back), z (to the head), x running fastest.
"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("case-data").textContent);
  const viewer = byId("viewer");
  const COLORS = page.colors;
  const [NX, NY, NZ] = page.shape;
  const SPACING = page.spacing_mm;

  // The axes across and down a picture, the axis looked along, and the letters at the top, right, bottom and left edge.
  const PLANES = {
    axial: { across: 0, down: 1, along: 2, flip: false, marks: ["A", "L", "P", "R"] },
    coronal: { across: 0, down: 2, along: 1, flip: true, marks: ["S", "L", "I", "R"] },
    sagittal: { across: 1, down: 2, along: 0, flip: true, marks: ["S", "P", "I", "A"] },
    mip: { across: 0, down: 2, along: 1, flip: true, marks: ["S", "L", "I", "R"] },
  };
  const SIZE = [NX, NY, NZ];
  const STRIDE = [1, NX, NX * NY];

  const state = { at: [NX >> 1, NY >> 1, NZ >> 1], lesion: 0, window: page.windows[0], overlay: "outline" };
  let gray, labels, lut, mip;

  async function unpack(id) {
    const text = byId(id).textContent;
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function undoDifferences(bytes) {
    for (let row = 0; row < bytes.length; row += NX) {
      for (let i = row + 1; i < row + NX; i++) bytes[i] += bytes[i - 1];
    }
    return bytes;
  }

  function makeLut() {
    const { low, high, inverted } = state.window;
    lut = page.levels.map((value) => {
      const part = Math.min(1, Math.max(0, (value - low) / (high - low)));
      return Math.round(255 * (inverted ? 1 - part : part));
    });
  }

  function makeMip() {
    const values = new Uint8Array(NX * NZ), numbers = new Uint16Array(NX * NZ);
    for (let z = 0; z < NZ; z++) {
      for (let y = 0; y < NY; y++) {
        for (let x = 0, from = (z * NY + y) * NX, to = z * NX; x < NX; x++, from++, to++) {
          if (gray[from] > values[to]) values[to] = gray[from];
          if (labels[from] > numbers[to]) numbers[to] = labels[from];
        }
      }
    }
    mip = { values, numbers };
  }

  // One slice in picture order: levels and lesion numbers.
  function slice(name) {
    const plane = PLANES[name], width = SIZE[plane.across], height = SIZE[plane.down];
    const values = new Uint8Array(width * height), numbers = new Uint16Array(width * height);
    for (let row = 0; row < height; row++) {
      const down = plane.flip ? height - 1 - row : row;
      let from = name === "mip" ? down * NX : state.at[plane.along] * STRIDE[plane.along] + down * STRIDE[plane.down];
      const step = name === "mip" ? 1 : STRIDE[plane.across];
      const [source, owners] = name === "mip" ? [mip.values, mip.numbers] : [gray, labels];
      for (let column = 0, to = row * width; column < width; column++, to++, from += step) {
        values[to] = source[from];
        numbers[to] = owners[from];
      }
    }
    return { values, numbers, width, height };
  }

  function picture(width, height, paint) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    paint(image.data);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function grayPicture({ values, width, height }) {
    return picture(width, height, (pixels) => {
      for (let n = 0, p = 0; n < values.length; n++, p += 4) {
        pixels[p] = pixels[p + 1] = pixels[p + 2] = lut[values[n]];
        pixels[p + 3] = 255;
      }
    });
  }

  function fillPicture({ numbers, width, height }) {
    return picture(width, height, (pixels) => {
      for (let n = 0, p = 0; n < numbers.length; n++, p += 4) {
        if (!numbers[n]) continue;
        const color = COLORS[(numbers[n] - 1) % COLORS.length];
        pixels[p] = color[0];
        pixels[p + 1] = color[1];
        pixels[p + 2] = color[2];
        pixels[p + 3] = 110;
      }
    });
  }

  // Lines along the edges of voxels where a lesion ends, within it.
  function strokeOutlines(context, { numbers, width, height }, area) {
    const paths = COLORS.map(() => new Path2D());
    const dx = area.width / width, dy = area.height / height;
    for (let row = 0, n = 0; row < height; row++) {
      for (let column = 0; column < width; column++, n++) {
        const own = numbers[n];
        if (!own) continue;
        const path = paths[(own - 1) % COLORS.length];
        const left = area.left + column * dx, top = area.top + row * dy, right = left + dx, bottom = top + dy;
        const edge = (isEnd, x0, y0, x1, y1) => {
          if (!isEnd) return;
          path.moveTo(x0, y0);
          path.lineTo(x1, y1);
        };
        edge(column === 0 || numbers[n - 1] !== own, left, top, left, bottom);
        edge(column === width - 1 || numbers[n + 1] !== own, right, top, right, bottom);
        edge(row === 0 || numbers[n - width] !== own, left, top, right, top);
        edge(row === height - 1 || numbers[n + width] !== own, left, bottom, right, bottom);
      }
    }
    context.lineCap = "square";
    context.lineWidth = 2 * (window.devicePixelRatio || 1);
    COLORS.forEach((color, n) => {
      context.strokeStyle = `rgb(${color})`;
      context.stroke(paths[n]);
    });
    context.lineCap = "butt";
  }

  // Where a plane's picture lies on its canvas, in canvas pixels.
  function layout(name, canvas) {
    const plane = PLANES[name];
    const widthMm = SIZE[plane.across] * SPACING[plane.across], heightMm = SIZE[plane.down] * SPACING[plane.down];
    const scale = Math.min(canvas.width / widthMm, canvas.height / heightMm);
    const width = widthMm * scale, height = heightMm * scale;
    const left = (canvas.width - width) / 2, top = (canvas.height - height) / 2;
    return { left, top, width, height, scale };
  }

  function toCanvas(name, canvas, voxel) {
    const plane = PLANES[name], area = layout(name, canvas);
    const down = plane.flip ? SIZE[plane.down] - 1 - voxel[plane.down] : voxel[plane.down];
    return [
      area.left + ((voxel[plane.across] + 0.5) * area.width) / SIZE[plane.across],
      area.top + ((down + 0.5) * area.height) / SIZE[plane.down],
    ];
  }

  function toVoxel(name, canvas, x, y) {
    const plane = PLANES[name], area = layout(name, canvas), voxel = [...state.at];
    const across = Math.floor(((x - area.left) / area.width) * SIZE[plane.across]);
    const row = Math.floor(((y - area.top) / area.height) * SIZE[plane.down]);
    const down = plane.flip ? SIZE[plane.down] - 1 - row : row;
    if (across < 0 || row < 0 || across >= SIZE[plane.across] || row >= SIZE[plane.down]) return null;
    voxel[plane.across] = across;
    voxel[plane.down] = down;
    return voxel;
  }

  function write(context, text, x, y, align, baseline) {
    const size = Math.max(11, Math.round(context.canvas.width / 32));
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = align;
    context.textBaseline = baseline;
    context.lineWidth = 3;
    context.strokeStyle = state.window.inverted ? "#fff" : "#000";
    context.fillStyle = state.window.inverted ? "#111" : "#fff";
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }

  function line(context, from, to, color, width, dash = []) {
    context.beginPath();
    context.setLineDash(dash);
    context.lineWidth = width;
    context.strokeStyle = color;
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    context.setLineDash([]);
  }

  function drawDiameters(name, canvas, context) {
    for (const lesion of page.lesions) {
      const ends = lesion.ends;
      if (!ends || name !== "axial" || Math.round((ends[0][2] + ends[1][2]) / 2) !== state.at[2]) continue;
      const [from, to] = ends.map((end) => toCanvas(name, canvas, end));
      line(context, from, to, "#000", 4);
      line(context, from, to, "#ffe600", 2);
    }
  }

  function draw(name) {
    const canvas = byId(`view-${name}`);
    if (!canvas) return;
    const ratio = window.devicePixelRatio || 1, side = Math.max(64, Math.round(canvas.clientWidth * ratio));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d"), area = layout(name, canvas), cut = slice(name), plane = PLANES[name];
    context.fillStyle = state.window.inverted ? "#fff" : "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.drawImage(grayPicture(cut), area.left, area.top, area.width, area.height);
    if (state.overlay !== "off") {
      context.imageSmoothingEnabled = false;
      if (state.overlay === "filled") context.drawImage(fillPicture(cut), area.left, area.top, area.width, area.height);
      strokeOutlines(context, cut, area);
      drawDiameters(name, canvas, context);
    }
    const [x, y] = toCanvas(name, canvas, state.at), gap = 14 * ratio, ink = "rgba(0, 150, 255, .85)";
    line(context, [x, 0], [x, y - gap], ink, 1);
    line(context, [x, y + gap], [x, canvas.height], ink, 1);
    line(context, [0, y], [x - gap, y], ink, 1);
    line(context, [x + gap, y], [canvas.width, y], ink, 1);
    const middle = canvas.width / 2, edge = 4 * ratio;
    write(context, plane.marks[0], middle, edge, "center", "top");
    write(context, plane.marks[1], canvas.width - edge, middle, "right", "middle");
    write(context, plane.marks[2], middle, canvas.height - edge, "center", "bottom");
    write(context, plane.marks[3], edge, middle, "left", "middle");
    drawScale(context, canvas, area, edge);
  }

  function drawScale(context, canvas, area, edge) {
    const length = 50 * area.scale, y = canvas.height - 2 * edge;
    if (length > canvas.width / 2) return;
    line(context, [2 * edge, y], [2 * edge + length, y], state.window.inverted ? "#fff" : "#000", 4);
    line(context, [2 * edge, y], [2 * edge + length, y], state.window.inverted ? "#111" : "#fff", 2);
    write(context, "50 mm", 2 * edge, y - edge, "left", "bottom");
  }

  const toLps = (voxel) => [0, 1, 2].map((row) => {
    const a = page.lps[row];
    return a[0] * voxel[0] + a[1] * voxel[1] + a[2] * voxel[2] + a[3];
  });
  const at = ([x, y, z]) => (z * NY + y) * NX + x;

  function show() {
    const index = at(state.at), owner = labels[index], lps = toLps(state.at);
    for (const name of Object.keys(PLANES)) draw(name);
    const value = page.levels[gray[index]];
    const place = `x ${lps[0].toFixed(1)}, y ${lps[1].toFixed(1)}, z ${lps[2].toFixed(1)} mm`;
    const what = owner ? `lesion ${owner}` : "no lesion";
    byId("where").textContent = `${place}: about ${Number(value.toPrecision(3))} ${page.unit}, ${what}`;
    Object.assign(viewer.dataset, { lps: lps.map((c) => c.toFixed(4)).join(" "), owner, lesion: state.lesion });
    viewer.dispatchEvent(new CustomEvent("moved", { detail: lps }));
    for (const [name, plane] of Object.entries(PLANES)) {
      const slider = byId(`slider-${name}`);
      if (slider) slider.value = state.at[plane.along];
    }
    for (const row of document.querySelectorAll("tr[data-lesion]")) {
      const isChosen = Number(row.dataset.lesion) === state.lesion;
      row.classList.toggle("chosen", isChosen);
      if (isChosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  let isWaiting = false;
  function redraw() {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      show();
    });
  }

  const inside = (voxel) => voxel.map((v, n) => Math.min(SIZE[n] - 1, Math.max(0, Math.round(v))));

  function goTo(voxel, lesion) {
    state.at = inside(voxel);
    state.lesion = lesion ?? labels[at(state.at)];
    redraw();
  }

  function chooseLesion(number, where = "center") {
    const lesion = page.lesions[number - 1];
    if (!lesion) return;
    const ends = lesion.ends;
    goTo(where === "diameter" && ends ? ends[0].map((v, n) => (v + ends[1][n]) / 2) : lesion.center, number);
  }

  function showRow(number) {
    const row = document.querySelector(`tr[data-lesion="${number}"]`);
    if (row) row.scrollIntoView({ block: "nearest" });
  }

  // Pictures: click or drag moves the crosshair, the wheel and the keys move through slices.
  function listenToPicture(name) {
    const canvas = byId(`view-${name}`), plane = PLANES[name];
    if (!canvas) return;
    const pick = (event) => {
      const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
      const voxel = toVoxel(name, canvas, (event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio);
      if (!voxel) return;
      if (name === "mip") {
        const owner = mip.numbers[voxel[2] * NX + voxel[0]];
        if (owner) chooseLesion(owner);
        else goTo(voxel);
      } else goTo(voxel);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pick(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1 && name !== "mip") pick(event);
    });
    canvas.addEventListener("click", () => {  // not sooner: scrolling under a pressed button would drag the crosshair
      if (state.lesion) showRow(state.lesion);
    });
    const through = (step) => {
      const voxel = [...state.at];
      voxel[plane.along] += step;
      goTo(voxel);
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (name !== "mip") through(event.deltaY > 0 ? -1 : 1);
    }, { passive: false });
    const down = plane.flip ? -1 : 1;
    const moves = {
      ArrowLeft: [plane.across, -1], ArrowRight: [plane.across, 1],
      ArrowUp: [plane.down, -down], ArrowDown: [plane.down, down],
      PageUp: [plane.along, 1], PageDown: [plane.along, -1],
    };
    canvas.addEventListener("keydown", (event) => {
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const voxel = [...state.at];
      voxel[move[0]] += move[1];
      goTo(voxel);
    });
    const slider = byId(`slider-${name}`);
    if (slider) {
      slider.max = SIZE[plane.along] - 1;
      slider.addEventListener("input", () => {
        const voxel = [...state.at];
        voxel[plane.along] = Number(slider.value);
        goTo(voxel);
      });
    }
  }

  function listenToControls() {
    const presets = byId("window");
    page.windows.forEach((preset, n) => presets.add(new Option(preset.name, String(n))));
    const fields = [byId("low"), byId("high")];
    const fill = () => {
      [fields[0].value, fields[1].value] = [state.window.low, state.window.high];
      makeLut();
      redraw();
    };
    presets.addEventListener("change", () => {
      state.window = page.windows[Number(presets.value)];
      fill();
    });
    for (const field of fields) {
      field.addEventListener("change", () => {
        const [low, high] = fields.map((each) => Number(each.value));
        if (high > low) state.window = { ...state.window, low, high };
        fill();
      });
    }
    const overlay = byId("overlay");
    overlay.addEventListener("change", () => {
      state.overlay = overlay.value;
      redraw();
    });
    const step = (by) => {
      const n = page.lesions.length;
      if (!n) return;
      const next = state.lesion ? ((state.lesion - 1 + by + n) % n) + 1 : by > 0 ? 1 : n;
      chooseLesion(next);
      showRow(next);
    };
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("diameter").addEventListener("click", () => chooseLesion(state.lesion || 1, "diameter"));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
      if (event.key === "n") step(1);
      else if (event.key === "p") step(-1);
      else if (event.key === "d") chooseLesion(state.lesion || 1, "diameter");
      else if (event.key === "o") {
        const all = ["outline", "filled", "off"];
        overlay.value = state.overlay = all[(all.indexOf(state.overlay) + 1) % all.length];
        redraw();
      }
    });
    fill();
  }

  // The table: rows lead to lesions, a button copies all columns.
  function listenToTable() {
    const table = byId("lesions");
    if (!table) return;
    const body = table.tBodies[0];
    body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-lesion]");
      if (row) chooseLesion(Number(row.dataset.lesion));
    });
    byId("copy").addEventListener("click", copyTable);
  }

  function csvField(value) {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  async function copyTable() {
    const text = [page.table.columns, ...page.table.rows].map((row) => row.map(csvField).join(",")).join("\n") + "\n";
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      isCopied = document.execCommand("copy");
      area.remove();
    }
    byId("copied").textContent = isCopied ? `${page.table.rows.length} rows copied as CSV` : "The browser did not allow it";
  }

  listenToTable();
  if (typeof DecompressionStream === "undefined") {
    byId("where").textContent = "This browser cannot unpack the scan; the key images below show every lesion.";
    return;
  }
  viewer.hidden = false;
  gray = undoDifferences(await unpack("scan-voxels"));
  const packed = await unpack("lesion-voxels");
  labels = page.label_bytes === 2 ? new Uint16Array(packed.buffer) : packed;
  if (byId("view-mip")) makeMip();
  listenToControls();
  for (const name of Object.keys(PLANES)) listenToPicture(name);
  window.addEventListener("resize", redraw);
  if (page.lesions.length) chooseLesion(1);
  show();
  const held = { page, gray, labels, state, goTo, lps: () => toLps(state.at) };  // for a view in 3-D
  viewer.dispatchEvent(new CustomEvent("ready", { detail: held }));
  viewer.dataset.state = "ready";
})();
