// Charts as SVG: the map of areas, the days of an area, a series of values. Each has its facts in a table beside it.
const YEAR_DAYS = 365.25;

function legend(entries) {
  return h('ul', { class: 'legend' }, entries.map(([kind, title]) => (
    h('li', {}, h('span', { class: `key ${kind}` }), title))));
}

// Limits of the classes of the map: none, and four more up to the largest number.
function mapClasses(areas) {
  const most = Math.max(1, ...areas.map((area) => area.counts.c));
  const limits = [...new Set([0, 0.25, 0.5, 0.75, 1].map((share) => Math.ceil(share * most)))];
  const titles = limits.map((limit, number) => {
    const first = number ? limits[number - 1] + 1 : 0;
    return first === limit ? `${limit}` : `${first} to ${limit}`;
  });
  return { of: (area) => limits.findIndex((limit) => area.counts.c <= limit), titles };
}

function positions(ring) {
  const found = [];
  let [x, y] = [0, 0];
  for (let at = 0; at < ring.length; at += 2) {
    x += ring[at];
    y += ring[at + 1];
    found.push([x / 1e5, y / 1e5]);
  }
  return found;
}

function extent(areas) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const area of areas) {
    for (const ring of area.shape || []) {
      for (const [lon, lat] of positions(ring)) {
        box[0] = Math.min(box[0], lon); box[1] = Math.min(box[1], lat);
        box[2] = Math.max(box[2], lon); box[3] = Math.max(box[3], lat);
      }
    }
  }
  return box[0] <= box[2] ? box : null;
}

// Longitudes are shortened by the cosine of the middle latitude, so that areas have their form.
function projection(box, width, most) {
  const stretch = Math.max(0.05, Math.cos(((box[1] + box[3]) / 2) * (Math.PI / 180)));
  const [wide, high] = [Math.max(1e-4, (box[2] - box[0]) * stretch), Math.max(1e-4, box[3] - box[1])];
  const margin = 34;
  const height = Math.min(most, Math.max(180, (high / wide) * (width - 2 * margin) + 2 * margin));
  const scale = Math.min((width - 2 * margin) / wide, (height - 2 * margin) / high);
  const left = (width - wide * scale) / 2;
  const top = (height - high * scale) / 2;
  return {
    height, scale,
    x: (lon) => left + (lon - box[0]) * stretch * scale,
    y: (lat) => top + (box[3] - lat) * scale,
    lon: (x) => box[0] + (x - left) / (stretch * scale),
    lat: (y) => box[3] - (y - top) / scale,
  };
}

function niceStep(range, parts) {
  const raw = range / parts;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
}

function graticule(shown, width) {
  const group = s('g', {});
  const degrees = (value, step) => `${value.toFixed(Math.max(0, -Math.floor(Math.log10(step))))}°`;
  const lines = (first, last, parts, draw) => {
    const step = niceStep(last - first, parts);
    for (let value = Math.ceil(first / step) * step; value <= last; value += step) draw(value, step);
  };
  lines(shown.lon(0), shown.lon(width), 4, (lon, step) => {
    const x = shown.x(lon);
    group.append(s('line', { class: 'grid', x1: x, x2: x, y1: 0, y2: shown.height }));
    const turned = ((lon + 540) % 360) - 180;
    if (x < width - 70 && x > 20) group.append(s('text', { x: x + 3, y: shown.height - 6 }, degrees(turned, step)));
  });
  lines(shown.lat(shown.height), shown.lat(0), 4, (lat, step) => {
    const y = shown.y(lat);
    group.append(s('line', { class: 'grid', x1: 0, x2: width, y1: y, y2: y }));
    if (y > 16 && y < shown.height - 24) group.append(s('text', { x: 4, y: y - 3 }, degrees(lat, step)));
  });
  return group;
}

// The map of areas. A mouse may choose an area here; the list below has the same areas for everybody.
function map(areas, width, most, choose) {
  const box = extent(areas);
  if (!box) return null;
  const classes = mapClasses(areas);
  const shown = projection(box, width, most);
  const [paths, dots, middles] = [['', '', '', '', ''], ['', '', '', '', ''], []];
  for (const area of areas) {
    const own = extent([area]);
    if (!own) continue;
    const kind = classes.of(area);
    const middle = [(shown.x(own[0]) + shown.x(own[2])) / 2, (shown.y(own[1]) + shown.y(own[3])) / 2];
    middles.push([...middle, area]);
    for (const ring of area.shape) {
      const points = positions(ring).map(([lon, lat]) => `${shown.x(lon).toFixed(2)} ${shown.y(lat).toFixed(2)}`);
      paths[kind] += `M${points.join('L')}Z`;
    }
    if (Math.max(shown.x(own[2]) - shown.x(own[0]), shown.y(own[1]) - shown.y(own[3])) < 7) {
      dots[kind] += `M${middle[0].toFixed(2)} ${middle[1].toFixed(2)}h0.01`;
    }
  }
  const label = `Map of ${count(areas.length, 'area')}, coloured by the number of clear days. The list has the numbers.`;
  const view = s('svg', { class: 'map', viewBox: `0 0 ${width} ${shown.height}`, width, role: 'img', 'aria-label': label });
  view.append(graticule(shown, width));
  dots.forEach((path) => { if (path) view.append(s('path', { class: 'dot dot-edge', d: path })); });
  paths.forEach((path, kind) => { if (path) view.append(s('path', { class: `outline n${kind}`, d: path })); });
  dots.forEach((path, kind) => { if (path) view.append(s('path', { class: `dot s${kind}`, d: path })); });
  const under = h('p', { class: 'soft' }, choose ? 'Point at an area to see its name.' : '');
  const keys = legend(classes.titles.map((title, kind) => [`n${kind}`, title]));
  const figure = h('figure', {}, view, h('figcaption', {}, 'Clear days:', keys));
  if (choose) figure.append(zoomable(view, width, shown.height, middles, under, choose), under);
  return figure;
}

function zoomable(view, width, height, middles, under, choose) {
  const whole_ = [0, 0, width, height];
  let box = [...whole_];
  let from = null;
  let isDragged = false;
  const show = () => {
    view.setAttribute('viewBox', box.join(' '));
    view.classList.toggle('zoomed', box[2] < width);
  };
  const zoom = (factor, at) => {
    const [w, tall] = [Math.min(width, box[2] * factor), Math.min(height, box[3] * factor)];
    const [x, y] = at || [box[0] + box[2] / 2, box[1] + box[3] / 2];
    box = [x - ((x - box[0]) * w) / box[2], y - ((y - box[1]) * tall) / box[3], w, tall];
    show();
  };
  const place = (event) => {
    const edge = view.getBoundingClientRect();
    return [box[0] + ((event.clientX - edge.left) / edge.width) * box[2],
      box[1] + ((event.clientY - edge.top) / edge.height) * box[3]];
  };
  const nearest = (event) => {
    const [x, y] = place(event);
    let [best, least] = [null, ((24 * box[2]) / width) ** 2 * 4];
    for (const [mx, my, area] of middles) {
      const distance = (mx - x) ** 2 + (my - y) ** 2;
      if (distance < least) [best, least] = [area, distance];
    }
    return best;
  };
  view.addEventListener('pointerdown', (event) => { from = place(event); isDragged = false; });
  view.addEventListener('pointermove', (event) => {
    if (from && event.buttons && box[2] < width) {
      const [x, y] = place(event);
      isDragged = true;
      box = [box[0] + from[0] - x, box[1] + from[1] - y, box[2], box[3]];
      show();
      return;
    }
    const area = nearest(event);
    under.textContent = area ? `${area.id}: ${count(area.counts.c, 'clear day')}` : 'Point at an area to see its name.';
  });
  view.addEventListener('pointerup', () => { from = null; });
  view.addEventListener('click', (event) => { const area = nearest(event); if (area && !isDragged) choose(area); });
  return h('p', { class: 'tools' },
    h('button', { type: 'button', onclick: () => zoom(0.5) }, 'Zoom in'),
    h('button', { type: 'button', onclick: () => zoom(2) }, 'Zoom out'),
    h('button', { type: 'button', onclick: () => { box = [...whole_]; show(); } }, 'Whole map'));
}

// The axis of days, which the charts of an area share.
function dayAxis(area, least) {
  const days = [...area.days.day, ...Object.values(area.values || {}).flatMap(([found]) => found)];
  const [first, last] = [Math.min(...days) - 4, Math.max(...days) + 4];
  const [left, right] = [46, 12];
  const width = Math.max(least, Math.min(6000, (last - first) * 1.4));
  return { first, last, left, width, right, x: (day) => left + ((day - first) / (last - first)) * (width - left - right) };
}

function months(axis, top, bottom) {
  const group = s('g', {});
  const years = (axis.last - axis.first) / YEAR_DAYS;
  const room = (axis.width / (years * 12));
  const step = [1, 2, 3, 6, 12].find((each) => each * room >= 58) || 12;
  const begin = new Date(axis.first * 86400000);
  for (let month = begin.getUTCMonth() - (begin.getUTCMonth() % step); ; month += step) {
    const day = Date.UTC(begin.getUTCFullYear(), month, 1) / 86400000;
    if (day > axis.last) return group;
    if (day < axis.first) continue;
    const x = axis.x(day);
    group.append(s('line', { class: 'grid', x1: x, x2: x, y1: top, y2: bottom }));
    if (x < axis.width - 58) group.append(s('text', { x: x + 3, y: bottom + 15 }, date(day).slice(0, 7)));
  }
}

// A bar for each day: the shares of the area from below, clear first. A day without an image is a frame.
function dayChart(area, least, open) {
  const axis = dayAxis(area, least);
  const [top, high] = [8, 150];
  const n = area.counts;
  const label = `${count(area.days.day.length, 'day')}: ${n.c} clear, ${n.p} partly clear, ${n.k} cloudy, `
    + `${n.e} without data, ${n.r} rejected, ${n.f} failed. The table below has each day.`;
  const view = s('svg', { width: axis.width, height: top + high + 22, role: 'img', 'aria-label': label });
  for (const share of [0, 50, 100]) {
    const y = top + high * (1 - share / 100);
    view.append(s('line', { class: 'grid', x1: axis.left, x2: axis.width, y1: y, y2: y }));
    view.append(s('text', { x: 0, y: y + 4 }, `${share} %`));
  }
  view.append(months(axis, top, top + high));
  const gaps = area.days.day.map((day, at, all) => day - all[at - 1]).filter((gap) => gap > 0).sort((a, b) => a - b);
  const usual = axis.x((gaps[Math.floor(gaps.length / 4)] || 5) + axis.first) - axis.x(axis.first);
  const wide = Math.max(2.5, Math.min(16, usual * 0.8));
  area.days.day.forEach((day, at) => view.append(bar(dayFacts(area, at), axis.x(day) - wide / 2, wide, top, high, () => open(at))));
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Chart of days' }, view);
}

function bar(facts, left, wide, top, high, open) {
  const group = s('g', {});
  let y = top + high;
  const add = (kind, share) => {
    const tall = (share / 100) * high;
    y -= tall;
    group.append(s('rect', { class: kind, x: left, y, width: wide, height: tall }));
  };
  const isThere = facts.state !== 'rejected' && facts.state !== 'failed';
  facts.shares.forEach((share, number) => { if (share) add(SHARES[number][0], share); });
  const rest = 100 - facts.shares.reduce((sum, share) => sum + (share || 0), 0);
  if (isThere && rest > 0.5) add('unknown', rest);
  if (!isThere) group.append(s('rect', { class: facts.state, x: left + 1, y: top + 1, width: Math.max(1, wide - 2), height: high - 2 }));
  const hit = s('rect', { class: facts.picture === undefined ? 'hit' : 'hit open', x: left, y: top, width: wide, height: high });
  hit.append(s('title', {}, [facts.date, facts.state, reasons(facts), facts.note].filter(Boolean).join(', ')));
  if (facts.picture !== undefined) hit.addEventListener('click', open);
  group.append(hit);
  return group;
}

// A series of values. Days of which less than half of the area is clear are hollow, and the line leaves them out.
function valueChart(area, name, least) {
  const axis = dayAxis(area, least);
  const [days, values] = area.values[name];
  const clear = new Map(area.days.day.map((day, at) => [day, (area.days.clear || [])[at]]));
  const isSure = (day) => !(clear.get(day) < 50);
  let [low, highest] = [Math.min(...values), Math.max(...values)];
  const step = niceStep(Math.max(highest - low, 1e-6), 4);
  [low, highest] = [Math.floor(low / step) * step, Math.ceil(highest / step) * step || step];
  if (highest <= low) highest = low + step;
  const [top, high] = [8, 150];
  const yOf = (value) => top + high * (1 - (value - low) / (highest - low));
  const label = `${name} on ${count(days.length, 'day')}, from ${Math.min(...values)} to ${Math.max(...values)}. `
    + 'The table below has each value.';
  const view = s('svg', { width: axis.width, height: top + high + 22, role: 'img', 'aria-label': label });
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let value = low; value <= highest + step / 2; value += step) {
    view.append(s('line', { class: 'grid', x1: axis.left, x2: axis.width, y1: yOf(value), y2: yOf(value) }));
    view.append(s('text', { x: 0, y: yOf(value) + 4 }, value.toFixed(decimals)));
  }
  view.append(months(axis, top, top + high));
  const sure = days.map((day, at) => [day, values[at]]).filter(([day]) => isSure(day));
  const path = sure.map(([day, value]) => `${axis.x(day).toFixed(1)} ${yOf(value).toFixed(1)}`).join('L');
  if (path) view.append(s('path', { class: 'curve', d: `M${path}` }));
  days.forEach((day, at) => {
    const point = s('circle', { class: isSure(day) ? 'point' : 'hollow', cx: axis.x(day), cy: yOf(values[at]), r: 3.5 });
    point.append(s('title', {}, `${date(day)}: ${values[at]}`));
    view.append(point);
  });
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Chart of ${name}` }, view);
}
