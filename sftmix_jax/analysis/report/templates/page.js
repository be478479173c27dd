const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00'];
const DASHES = ['solid', 'dash', 'dot', 'dashdot'];
const FEW = 40;  // points up to which each has a marker
const OPTIONS = {responsive: true, displaylogo: false, displayModeBar: false};

// --- figures; those within a fold are drawn when it is opened

const draw = place => {
  const made = JSON.parse(place.dataset.plot);
  Plotly.newPlot(place, made.data, made.layout, OPTIONS);
};
for (const place of document.querySelectorAll('.plot')) if (!place.closest('details')) draw(place);
for (const fold of document.querySelectorAll('details')) {
  fold.addEventListener('toggle', () => fold.querySelectorAll(':scope > figure .plot').forEach(draw), {once: true});
}

// --- curves over the steps of chosen runs

const PANELS = [
  ['loss by domain', name => name.startsWith('loss/'), 'nats per trained token', true],
  ['validation loss by domain', name => name.startsWith('validation_loss/'), 'nats per trained token', true],
  ['learning rate', name => name === 'learning_rate', '', false],
  ['gradient norm', name => name === 'grad_norm', '', true],
  ['throughput', name => name === 'tokens_per_second', 'tokens per second', false],
];

// An exponential mean that starts at the first value and skips steps without one.
const smoothed = (values, weight) => {
  let mean = null;
  return values.map(value => {
    if (value === null) return null;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
};

// The series of a run over all of its stages: a stage's last step is the next one's zero.
const joined = (curves, chain) => {
  const lines = new Map(), borders = [];
  let offset = 0;
  for (const id of chain) {
    const stage = curves.stages[id];
    if (!stage) break;
    for (const of of [stage.training, stage.validation]) {
      for (const [name, values] of Object.entries(of.values)) {
        if (!lines.has(name)) lines.set(name, {x: [], y: [], after: []});
        const line = lines.get(name);
        values.forEach((value, i) => {
          if (value === null) return;
          line.x.push(offset + of.step[i]);
          line.y.push(value);
          line.after.push(stage.name);
        });
      }
    }
    offset += stage.steps;
    borders.push(offset);
  }
  return {lines, borders};
};

const panelTraces = (curves, chosen, accepts, weight, domains) => {
  const traces = [];
  chosen.forEach(([name, chain], place) => {
    for (const [series, line] of joined(curves, chain).lines) {
      if (!accepts(series) || !line.x.length) continue;
      const domain = series.includes('/') ? series.slice(series.indexOf('/') + 1) : '';
      const kind = domains.indexOf(domain), several = chosen.length > 1;
      const colour = COLOURS[(several ? place : Math.max(kind, 0)) % COLOURS.length];
      traces.push({
        x: line.x, y: weight ? smoothed(line.y, weight) : line.y, text: line.after, type: 'scatter',
        name: [several ? name : '', domain].filter(Boolean).join(', ') || name,
        mode: line.x.length <= FEW ? 'lines+markers' : 'lines',
        line: {color: colour, width: 1.5, dash: several ? DASHES[Math.max(kind, 0) % DASHES.length] : 'solid'},
        marker: {color: colour, size: 5},
        hovertemplate: '%{text}, step %{x}: %{y:.4g}<extra>%{fullData.name}</extra>',
      });
    }
  });
  return traces;
};

const showCurves = place => {
  const curves = JSON.parse(place.dataset.curves);
  const names = new Set();
  for (const stage of Object.values(curves.stages)) {
    for (const of of [stage.training, stage.validation]) Object.keys(of.values).forEach(name => names.add(name));
  }
  const domains = [...new Set([...names].filter(name => name.includes('/')).map(n => n.slice(n.indexOf('/') + 1)))];
  const boxes = [...place.querySelectorAll('.runs input')];
  const [logX, logY] = ['log-x', 'log-y'].map(value => place.querySelector(`input[value=${value}]`));
  const range = place.querySelector('input[type=range]');
  const shown = PANELS.filter(([, accepts]) => [...names].some(accepts)).map(panel => {
    const plot = document.createElement('div');
    plot.className = 'plot';
    place.querySelector('.plots').append(plot);
    return [plot, panel];
  });
  const update = () => {
    const chosen = boxes.length ? boxes.filter(box => box.checked).map(box => curves.runs[box.value]) : curves.runs;
    const borders = new Set(chosen.flatMap(([, chain]) => joined(curves, chain).borders.slice(0, -1)));
    for (const [plot, [title, accepts, unit, isLoss]] of shown) {
      const traces = panelTraces(curves, chosen, accepts, Number(range.value), domains);
      const legends = traces.length > 1 ? traces.length : 0;
      Plotly.react(plot, traces, {
        title: {text: title, font: {size: 14}}, height: 270 + 20 * Math.min(legends, 12),
        xaxis: {title: {text: 'step'}, type: logX.checked ? 'log' : 'linear', automargin: true},
        yaxis: {title: {text: unit}, exponentformat: title === 'learning rate' ? 'e' : 'none', type: isLoss && logY.checked ? 'log' : 'linear', automargin: true},
        margin: {l: 50, r: 10, t: 36, b: 40}, showlegend: legends > 0,
        legend: {orientation: 'h', yref: 'container', y: 0, yanchor: 'bottom', font: {size: 11}},
        shapes: [...borders].map(x => ({
          type: 'line', x0: x, x1: x, y0: 0, y1: 1, yref: 'paper', line: {color: '#aab2bb', width: 1, dash: 'dot'},
        })),
        paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      }, OPTIONS);
    }
  };
  place.querySelector('.controls').addEventListener('input', update);
  update();
};
document.querySelectorAll('.curves').forEach(showCurves);

// --- tables: filtered by words, sorted by a click on a head

for (const input of document.querySelectorAll('.table input')) {
  input.addEventListener('input', () => {
    const words = input.value.toLowerCase().split(' ');
    for (const row of input.parentElement.querySelectorAll('tbody tr'))
      row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}
for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const head = button.parentElement, body = head.closest('table').tBodies[0];
    const place = [...head.parentElement.children].indexOf(head);
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of head.parentElement.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const key = row => row.children[place].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const x = parseFloat(key(a)), y = parseFloat(key(b));
      const order = isNaN(x) || isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
