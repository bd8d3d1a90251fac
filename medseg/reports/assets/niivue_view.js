// The 3-D view: NiiVue, unpacked from this page when it is asked for, shows the voxels and lesions that the viewer holds.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const section = byId("view3d"), canvas = byId("view3d-canvas"), button = byId("view3d-start"), told = byId("view3d-told");
  let held, nv, isFollowing = false;

  async function unpackScript() {
    const bytes = Uint8Array.from(atob(byId("niivue-script").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();  // the page's policy allows this text by its hash
    document.head.append(script);
  }

  // A NIfTI-1 file in memory: x runs fastest, as in the viewer; the affine as sform.
  function nifti(voxels, type, bits, slope, intercept) {
    const buffer = new ArrayBuffer(352 + voxels.byteLength), header = new DataView(buffer);
    const { shape, spacing_mm: spacing, lps } = held.page;
    header.setInt32(0, 348, true);
    [3, ...shape, 1, 1, 1, 1].forEach((n, i) => header.setInt16(40 + 2 * i, n, true));
    header.setInt16(70, type, true);
    header.setInt16(72, bits, true);
    [1, ...spacing, 0, 0, 0, 0].forEach((v, i) => header.setFloat32(76 + 4 * i, v, true));
    header.setFloat32(108, 352, true);
    header.setFloat32(112, slope, true);
    header.setFloat32(116, intercept, true);
    header.setUint8(123, 2);  // millimeters
    header.setInt16(254, 1, true);
    lps.slice(0, 3).forEach((row, r) => row.forEach((v, c) => {
      header.setFloat32(280 + 16 * r + 4 * c, r < 2 ? -v : v, true);  // RAS
    }));
    [0x6e, 0x2b, 0x31, 0].forEach((c, i) => header.setUint8(344 + i, c));
    new Uint8Array(buffer, 352).set(new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength));
    return buffer;
  }

  // Levels in scan units, in 65536 equal steps.
  function scanVolume() {
    const levels = held.page.levels, low = levels[0], step = (levels[levels.length - 1] - low) / 65535 || 1;
    const numbers = levels.map((level) => Math.round((level - low) / step) - 32768);
    const voxels = new Int16Array(held.gray.length);
    for (let i = 0; i < voxels.length; i++) voxels[i] = numbers[held.gray[i]];
    return nifti(voxels, 4, 16, step, low + 32768 * step);
  }

  function lesionColors() {
    const n = held.page.lesions.length, colors = held.page.colors;
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0] };
    for (let number = 1; number <= n; number++) {
      const [r, g, b] = colors[(number - 1) % colors.length];
      table.R.push(r);
      table.G.push(g);
      table.B.push(b);
      table.A.push(255);
      table.I.push(number);
    }
    return table;
  }

  async function start() {
    button.disabled = true;
    told.textContent = "Unpacking NiiVue; without a graphics processor this takes a while.";
    await new Promise((done) => setTimeout(done));  // the words are drawn before the work begins
    await unpackScript();
    const { Niivue, NVImage, SLICE_TYPE } = window.niivue;
    canvas.hidden = false;
    nv = new Niivue({
      dragAndDropEnabled: false, isRadiologicalConvention: true, isResizeCanvas: true, logLevel: "error",
      multiplanarShowRender: 1, show3Dcrosshair: true, backColor: [0, 0, 0, 1], crosshairColor: [0, 0.6, 1, 1],
    });
    await nv.attachToCanvas(canvas, false);
    const { low, high } = held.state.window;
    nv.addVolume(await NVImage.new(scanVolume(), "scan.nii", "gray", 1, null, low, high));
    if (held.page.lesions.length) {
      const [type, bits] = held.labels.BYTES_PER_ELEMENT === 2 ? [512, 16] : [2, 8];
      const lesions = await NVImage.new(nifti(held.labels, type, bits, 1, 0), "lesions.nii", "gray", 1);
      lesions.setColormapLabel(lesionColors());
      nv.addVolume(lesions);
    }
    nv.setSliceType(SLICE_TYPE.RENDER);
    showThrough();
    nv.onLocationChange = (place) => {
      if (!isFollowing && place.vox) held.goTo([...place.vox].slice(0, 3));
    };
    follow(held.lps());
    byId("view3d-controls").hidden = false;
    button.hidden = true;
    told.textContent = "Drag or arrow keys turn the body; in planes, a click moves the crosshair of the viewer too.";
    section.dataset.state = "ready";
  }

  function follow(lps) {
    if (!nv) return;
    isFollowing = true;
    nv.scene.crosshairPos = nv.mm2frac([-lps[0], -lps[1], lps[2]]);
    nv.drawScene();
    isFollowing = false;
    section.dataset.lps = lps.map((c) => c.toFixed(4)).join(" ");
  }

  function showThrough() {
    nv.setOpacity(0, Number(byId("view3d-body").value));
  }

  byId("viewer").addEventListener("ready", (event) => {
    held = event.detail;
    section.hidden = false;
  });
  byId("viewer").addEventListener("moved", (event) => follow(event.detail));
  button.addEventListener("click", async () => {
    try {
      await start();
    } catch (error) {
      nv = undefined;
      canvas.hidden = true;
      section.dataset.state = "failed";
      told.textContent = `The 3-D view does not run in this browser (it needs WebGL 2): ${error.message ?? error}. ` +
        "The planes above show the same voxels.";
    }
  });
  byId("view3d-body").addEventListener("input", showThrough);
  byId("view3d-layout").addEventListener("change", (event) => {
    const types = window.niivue.SLICE_TYPE;
    nv.setSliceType(event.target.value === "render" ? types.RENDER : types.MULTIPLANAR);
  });
  const turns = { ArrowLeft: [-15, 0], ArrowRight: [15, 0], ArrowUp: [0, 15], ArrowDown: [0, -15] };
  canvas.addEventListener("keydown", (event) => {
    const turn = turns[event.key];
    if (!turn || !nv) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + turn[0], nv.scene.renderElevation + turn[1]);
    section.dataset.turn = `${nv.scene.renderAzimuth} ${nv.scene.renderElevation}`;
  }, { capture: true });
})();
