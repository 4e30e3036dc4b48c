'use strict';
// The data of the page, and the elements that show them. A text of the data only ever becomes a text node.
const data = JSON.parse(document.getElementById('data').textContent);
const STATES = {
  c: 'clear', p: 'partly clear', k: 'cloudy', e: 'no data', r: 'rejected', f: 'failed',
};
const SHARES = [
  ['clear', 'Clear'], ['cloud', 'Cloud'], ['shadow', 'Cloud shadow'], ['other', 'Other mask'], ['no_data', 'No data'],
];
const byId = new Map(data.areas.map((area) => [area.id, area]));

function h(name, members, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(members || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function s(name, members, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(members || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const whole = new Intl.NumberFormat('en');
const count = (number, one, many) => `${whole.format(number)} ${number === 1 ? one : many || `${one}s`}`;
const percent = (share) => (share === null || share === undefined ? '' : `${Math.round(share)} %`);
const date = (day) => new Date(day * 86400000).toISOString().slice(0, 10);
const instant = (text) => (text ? text.slice(0, 16).replace('T', ' ') + ' UTC' : '');
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function counts(area) {
  const found = { c: 0, p: 0, k: 0, e: 0, r: 0, f: 0 };
  for (const letter of area.days.state) found[letter] += 1;
  return found;
}

// Columns of days are compact in the data: dates are differences, and a column of one value is only this value.
// What the list and the map sort and colour areas by is computed once.
for (const area of data.areas) {
  const { day, state } = area.days;
  day.forEach((difference, at) => { if (at) day[at] += day[at - 1]; });
  for (const name of ['scenes', ...SHARES.map(([each]) => each)]) {
    const column = area.days[name];
    if (typeof column === 'number') area.days[name] = new Array(day.length).fill(column);
  }
  area.counts = counts(area);
  area.lastClear = state.lastIndexOf('c') >= 0 ? day[state.lastIndexOf('c')] : null;
}

function dayFacts(area, at) {
  const days = area.days;
  const label = (days.label || {})[at] || date(days.day[at]).replaceAll('-', '');
  const scenes = days.scenes[at];
  return {
    label,
    date: date(days.day[at]),
    state: STATES[days.state[at]],
    shares: SHARES.map(([name]) => (days[name] ? days[name][at] : null)),
    scenes: Array.isArray(scenes) ? scenes.map((number) => data.scenes[number]) : null,
    sceneCount: Array.isArray(scenes) ? scenes.length : scenes,
    note: (days.note || {})[at] || '',
    picture: (days.picture || {})[at],
  };
}

function reasons(facts) {
  const known = SHARES.map(([, title], number) => [title.toLowerCase(), facts.shares[number]]);
  return known.filter(([, share]) => share >= 0.5).map(([title, share]) => `${percent(share)} ${title}`).join(', ');
}

// The address of a PNG beside the page. A name becomes one step of a path, whatever its characters.
function pictureAddress(area, label) {
  try {
    const [folder, file] = [area.id, `${area.id}_${label}`].map(encodeURIComponent);
    return `./${folder}/${file}/${file}.png`;
  } catch {
    return null; // a name that is no text cannot be in an address
  }
}

const embedded = (number) => (number >= 0 ? `data:image/webp;base64,${data.pictures[number]}` : null);

function table(caption, heads, rows) {
  // A head that begins with # is that of a column of numbers.
  const kinds = heads.map((head) => (head[0] === '#' ? 'number' : null));
  const cell = (value, number) => {
    const members = { class: kinds[number] || (String(value).length > 40 ? 'long' : null) };
    return number === 0 ? h('th', { scope: 'row', ...members }, value) : h('td', members, value);
  };
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    h('table', {}, h('caption', {}, caption),
      h('thead', {}, h('tr', {}, heads.map((head, number) => (
        h('th', { scope: 'col', class: kinds[number] }, head.replace('#', '')))))),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map((value, number) => (
        cell(value === null || value === undefined ? '' : value, number))))))));
}

// A table that is built when it is opened: a page of many days opens faster.
function folded(title, make) {
  const details = h('details', {}, h('summary', {}, title));
  details.addEventListener('toggle', () => { if (details.open && details.children.length === 1) details.append(make()); });
  return details;
}

function section(title, ...content) {
  return h('section', {}, h('h2', {}, title), ...content);
}
