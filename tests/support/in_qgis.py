"""Open an image and its QA image in QGIS, and print what QGIS makes of them. Debian's Python runs this file.

Arguments: the image, the QA image, and optionally a PNG to draw both of them on.
"""

import json
import os
import sys
from pathlib import Path

os.environ["QT_QPA_PLATFORM"] = "offscreen"
from qgis.core import (
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsRasterBandStats,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QRect, QSize, Qt
from qgis.PyQt.QtGui import QColor, QImage, QPainter

WIDTH, HEIGHT, LEGEND, GAP = 560, 330, 150, 20


def open_layer(path):
    layer = QgsRasterLayer(path, Path(path).name)
    assert layer.isValid(), path
    return layer


def describe_image(layer):
    renderer, provider = layer.renderer(), layer.dataProvider()
    stretches = (
        renderer.redContrastEnhancement(),
        renderer.greenContrastEnhancement(),
        renderer.blueContrastEnhancement(),
    )
    bands = range(1, layer.bandCount() + 1)
    found = [provider.bandStatistics(band, QgsRasterBandStats.All) for band in bands]
    return {
        "names": [layer.bandName(band) for band in bands],
        "shown": [renderer.redBand(), renderer.greenBand(), renderer.blueBand()],
        "limits": [[each.minimumValue(), each.maximumValue()] for each in stretches],
        "statistics": [[each.minimumValue, each.maximumValue, each.mean, each.stdDev] for each in found],
    }


def draw_layer(layer):
    view = QgsMapSettings()
    view.setLayers([layer])
    view.setExtent(layer.extent())
    view.setOutputSize(QSize(WIDTH, HEIGHT))
    view.setDestinationCrs(layer.crs())
    view.setBackgroundColor(QColor(255, 255, 255))
    job = QgsMapRendererParallelJob(view)
    job.start()
    job.waitForFinished()
    return job.renderedImage()


def draw(image, qa, path):
    sheet = QImage(2 * WIDTH + LEGEND + 2 * GAP, HEIGHT, QImage.Format_RGB32)
    sheet.fill(QColor(255, 255, 255))
    painter = QPainter(sheet)
    painter.drawImage(0, 0, draw_layer(image))
    painter.drawImage(WIDTH + GAP, 0, draw_layer(qa))
    for row, (label, colour) in enumerate(qa.renderer().legendSymbologyItems()):
        top = 30 + 34 * row
        if colour.alpha():
            painter.fillRect(QRect(2 * WIDTH + 2 * GAP, top, 26, 18), colour)
        painter.drawRect(QRect(2 * WIDTH + 2 * GAP, top, 26, 18))
        painter.drawText(QRect(2 * WIDTH + 2 * GAP + 36, top, LEGEND, 18), Qt.AlignVCenter, label)
    painter.end()
    assert sheet.save(path)


application = QgsApplication([], False)
application.initQgis()
image, qa = open_layer(sys.argv[1]), open_layer(sys.argv[2])
legend = [[label, colour.getRgb()] for label, colour in qa.renderer().legendSymbologyItems()]
print(json.dumps(describe_image(image) | {"legend": legend}))
if len(sys.argv) > 3:
    draw(image, qa, sys.argv[3])
